//! gemm_fragments_8: a quarter of the tile of `gemm_cooperative` as 4x4 fragments of 8x8 values.

alias LeftFragment = coop_mat8x8<f16, A>;
alias RightFragment = coop_mat8x8<f16, B>;
alias SumFragment = coop_mat8x8<f32, C>;

/// The fragment that begins at row 8 * R and column 8 * C of the quarter is number 4 * R + C. All indices are
/// constants, so that the sums can stay in registers. (Mesa 26.1 compiles no struct of larger fragments.)
alias Sums = array<SumFragment, 16>;

fn multiply_panels(sums: ptr<function, Sums>, row: u32, column: u32) {
    for (var term = 0u; term < DEPTH; term += 8u) {
        let from_left = row * LEFT_STRIDE + term;
        let a0 = coopLoadT<LeftFragment>(&left[from_left], LEFT_STRIDE);
        let a1 = coopLoadT<LeftFragment>(&left[from_left + 8u * LEFT_STRIDE], LEFT_STRIDE);
        let a2 = coopLoadT<LeftFragment>(&left[from_left + 16u * LEFT_STRIDE], LEFT_STRIDE);
        let a3 = coopLoadT<LeftFragment>(&left[from_left + 24u * LEFT_STRIDE], LEFT_STRIDE);
        let from_right = term * RIGHT_STRIDE + column;
        let b0 = coopLoadT<RightFragment>(&right[from_right], RIGHT_STRIDE);
        let b1 = coopLoadT<RightFragment>(&right[from_right + 8u], RIGHT_STRIDE);
        let b2 = coopLoadT<RightFragment>(&right[from_right + 16u], RIGHT_STRIDE);
        let b3 = coopLoadT<RightFragment>(&right[from_right + 24u], RIGHT_STRIDE);
        (*sums)[0] = coopMultiplyAdd(a0, b0, (*sums)[0]);
        (*sums)[1] = coopMultiplyAdd(a0, b1, (*sums)[1]);
        (*sums)[2] = coopMultiplyAdd(a0, b2, (*sums)[2]);
        (*sums)[3] = coopMultiplyAdd(a0, b3, (*sums)[3]);
        (*sums)[4] = coopMultiplyAdd(a1, b0, (*sums)[4]);
        (*sums)[5] = coopMultiplyAdd(a1, b1, (*sums)[5]);
        (*sums)[6] = coopMultiplyAdd(a1, b2, (*sums)[6]);
        (*sums)[7] = coopMultiplyAdd(a1, b3, (*sums)[7]);
        (*sums)[8] = coopMultiplyAdd(a2, b0, (*sums)[8]);
        (*sums)[9] = coopMultiplyAdd(a2, b1, (*sums)[9]);
        (*sums)[10] = coopMultiplyAdd(a2, b2, (*sums)[10]);
        (*sums)[11] = coopMultiplyAdd(a2, b3, (*sums)[11]);
        (*sums)[12] = coopMultiplyAdd(a3, b0, (*sums)[12]);
        (*sums)[13] = coopMultiplyAdd(a3, b1, (*sums)[13]);
        (*sums)[14] = coopMultiplyAdd(a3, b2, (*sums)[14]);
        (*sums)[15] = coopMultiplyAdd(a3, b3, (*sums)[15]);
    }
}

/// Hands the quarter over in four steps of one row of fragments. What is stored has a name, as naga 30 wants it.
fn store_quarter(sums: ptr<function, Sums>, place: Place) {
    let at = spare_or_own(place);
    let stride = 32u;
    let at_1 = at + 8u;
    let at_2 = at + 16u;
    let at_3 = at + 24u;
    let sum_0 = (*sums)[0];
    coopStoreT(sum_0, &finished[at], stride);
    let sum_1 = (*sums)[1];
    coopStoreT(sum_1, &finished[at_1], stride);
    let sum_2 = (*sums)[2];
    coopStoreT(sum_2, &finished[at_2], stride);
    let sum_3 = (*sums)[3];
    coopStoreT(sum_3, &finished[at_3], stride);
    hand_over(place, 0u, 0u, stride);
    let sum_4 = (*sums)[4];
    coopStoreT(sum_4, &finished[at], stride);
    let sum_5 = (*sums)[5];
    coopStoreT(sum_5, &finished[at_1], stride);
    let sum_6 = (*sums)[6];
    coopStoreT(sum_6, &finished[at_2], stride);
    let sum_7 = (*sums)[7];
    coopStoreT(sum_7, &finished[at_3], stride);
    hand_over(place, 8u, 0u, stride);
    let sum_8 = (*sums)[8];
    coopStoreT(sum_8, &finished[at], stride);
    let sum_9 = (*sums)[9];
    coopStoreT(sum_9, &finished[at_1], stride);
    let sum_10 = (*sums)[10];
    coopStoreT(sum_10, &finished[at_2], stride);
    let sum_11 = (*sums)[11];
    coopStoreT(sum_11, &finished[at_3], stride);
    hand_over(place, 16u, 0u, stride);
    let sum_12 = (*sums)[12];
    coopStoreT(sum_12, &finished[at], stride);
    let sum_13 = (*sums)[13];
    coopStoreT(sum_13, &finished[at_1], stride);
    let sum_14 = (*sums)[14];
    coopStoreT(sum_14, &finished[at_2], stride);
    let sum_15 = (*sums)[15];
    coopStoreT(sum_15, &finished[at_3], stride);
    hand_over(place, 24u, 0u, stride);
}
