//! gemm_fragments_16: a quarter of the tile of `gemm_cooperative` as 2x2 fragments of 16x16 values.

alias LeftFragment = coop_mat16x16<f16, A>;
alias RightFragment = coop_mat16x16<f16, B>;
alias SumFragment = coop_mat16x16<f32, C>;

/// The fragment that begins at row 16 * R and column 16 * C of the quarter is number 2 * R + C. All indices are
/// constants, so that the sums can stay in registers. (Mesa 26.1 compiles no struct of larger fragments.)
alias Sums = array<SumFragment, 4>;

fn multiply_panels(sums: ptr<function, Sums>, row: u32, column: u32) {
    for (var term = 0u; term < DEPTH; term += 16u) {
        let from_left = row * LEFT_STRIDE + term;
        let a0 = coopLoadT<LeftFragment>(&left[from_left], LEFT_STRIDE);
        let a1 = coopLoadT<LeftFragment>(&left[from_left + 16u * LEFT_STRIDE], LEFT_STRIDE);
        let from_right = term * RIGHT_STRIDE + column;
        let b0 = coopLoadT<RightFragment>(&right[from_right], RIGHT_STRIDE);
        let b1 = coopLoadT<RightFragment>(&right[from_right + 16u], RIGHT_STRIDE);
        (*sums)[0] = coopMultiplyAdd(a0, b0, (*sums)[0]);
        (*sums)[1] = coopMultiplyAdd(a0, b1, (*sums)[1]);
        (*sums)[2] = coopMultiplyAdd(a1, b0, (*sums)[2]);
        (*sums)[3] = coopMultiplyAdd(a1, b1, (*sums)[3]);
    }
}

/// Hands the quarter over in four steps of one fragment. What is stored has a name, as naga 30 wants it.
fn store_quarter(sums: ptr<function, Sums>, place: Place) {
    let at = spare_or_own(place);
    let stride = 16u;
    let sum_0 = (*sums)[0];
    coopStoreT(sum_0, &finished[at], stride);
    hand_over(place, 0u, 0u, stride);
    let sum_1 = (*sums)[1];
    coopStoreT(sum_1, &finished[at], stride);
    hand_over(place, 0u, 16u, stride);
    let sum_2 = (*sums)[2];
    coopStoreT(sum_2, &finished[at], stride);
    hand_over(place, 16u, 0u, stride);
    let sum_3 = (*sums)[3];
    coopStoreT(sum_3, &finished[at], stride);
    hand_over(place, 16u, 16u, stride);
}
