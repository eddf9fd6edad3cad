//! gemm_fragments_8: a quarter of the tile of `gemm_cooperative` as 4x4 fragments of 8x8 values.

alias LeftFragment = coop_mat8x8<f16, A>;
alias RightFragment = coop_mat8x8<f16, B>;
alias SumFragment = coop_mat8x8<f32, C>;

/// `sRC` begins at row 8 * R and column 8 * C of the quarter. Each has a name, since registers have no index.
struct Sums {
    s00: SumFragment, s01: SumFragment, s02: SumFragment, s03: SumFragment,
    s10: SumFragment, s11: SumFragment, s12: SumFragment, s13: SumFragment,
    s20: SumFragment, s21: SumFragment, s22: SumFragment, s23: SumFragment,
    s30: SumFragment, s31: SumFragment, s32: SumFragment, s33: SumFragment,
}

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
        (*sums).s00 = coopMultiplyAdd(a0, b0, (*sums).s00);
        (*sums).s01 = coopMultiplyAdd(a0, b1, (*sums).s01);
        (*sums).s02 = coopMultiplyAdd(a0, b2, (*sums).s02);
        (*sums).s03 = coopMultiplyAdd(a0, b3, (*sums).s03);
        (*sums).s10 = coopMultiplyAdd(a1, b0, (*sums).s10);
        (*sums).s11 = coopMultiplyAdd(a1, b1, (*sums).s11);
        (*sums).s12 = coopMultiplyAdd(a1, b2, (*sums).s12);
        (*sums).s13 = coopMultiplyAdd(a1, b3, (*sums).s13);
        (*sums).s20 = coopMultiplyAdd(a2, b0, (*sums).s20);
        (*sums).s21 = coopMultiplyAdd(a2, b1, (*sums).s21);
        (*sums).s22 = coopMultiplyAdd(a2, b2, (*sums).s22);
        (*sums).s23 = coopMultiplyAdd(a2, b3, (*sums).s23);
        (*sums).s30 = coopMultiplyAdd(a3, b0, (*sums).s30);
        (*sums).s31 = coopMultiplyAdd(a3, b1, (*sums).s31);
        (*sums).s32 = coopMultiplyAdd(a3, b2, (*sums).s32);
        (*sums).s33 = coopMultiplyAdd(a3, b3, (*sums).s33);
    }
}

/// Hands the quarter over in four steps of one row of fragments. What is stored has a name, as naga 30 wants it.
fn store_quarter(sums: ptr<function, Sums>, place: Place) {
    let at = spare_or_own(place);
    let stride = 32u;
    let at_1 = at + 8u;
    let at_2 = at + 16u;
    let at_3 = at + 24u;
    let s00 = (*sums).s00;
    coopStoreT(s00, &finished[at], stride);
    let s01 = (*sums).s01;
    coopStoreT(s01, &finished[at_1], stride);
    let s02 = (*sums).s02;
    coopStoreT(s02, &finished[at_2], stride);
    let s03 = (*sums).s03;
    coopStoreT(s03, &finished[at_3], stride);
    hand_over(place, 0u, 0u, stride);
    let s10 = (*sums).s10;
    coopStoreT(s10, &finished[at], stride);
    let s11 = (*sums).s11;
    coopStoreT(s11, &finished[at_1], stride);
    let s12 = (*sums).s12;
    coopStoreT(s12, &finished[at_2], stride);
    let s13 = (*sums).s13;
    coopStoreT(s13, &finished[at_3], stride);
    hand_over(place, 8u, 0u, stride);
    let s20 = (*sums).s20;
    coopStoreT(s20, &finished[at], stride);
    let s21 = (*sums).s21;
    coopStoreT(s21, &finished[at_1], stride);
    let s22 = (*sums).s22;
    coopStoreT(s22, &finished[at_2], stride);
    let s23 = (*sums).s23;
    coopStoreT(s23, &finished[at_3], stride);
    hand_over(place, 16u, 0u, stride);
    let s30 = (*sums).s30;
    coopStoreT(s30, &finished[at], stride);
    let s31 = (*sums).s31;
    coopStoreT(s31, &finished[at_1], stride);
    let s32 = (*sums).s32;
    coopStoreT(s32, &finished[at_2], stride);
    let s33 = (*sums).s33;
    coopStoreT(s33, &finished[at_3], stride);
    hand_over(place, 24u, 0u, stride);
}
