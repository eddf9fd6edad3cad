//! gemm_fragments_16: a quarter of the tile of `gemm_cooperative` as 2x2 fragments of 16x16 values.

alias LeftFragment = coop_mat16x16<f16, A>;
alias RightFragment = coop_mat16x16<f16, B>;
alias SumFragment = coop_mat16x16<f32, C>;

/// `sRC` begins at row 16 * R and column 16 * C of the quarter. Each has a name, since registers have no index.
struct Sums {
    s00: SumFragment, s01: SumFragment,
    s10: SumFragment, s11: SumFragment,
}

fn multiply_panels(sums: ptr<function, Sums>, row: u32, column: u32) {
    for (var term = 0u; term < DEPTH; term += 16u) {
        let from_left = row * LEFT_STRIDE + term;
        let a0 = coopLoadT<LeftFragment>(&left[from_left], LEFT_STRIDE);
        let a1 = coopLoadT<LeftFragment>(&left[from_left + 16u * LEFT_STRIDE], LEFT_STRIDE);
        let from_right = term * RIGHT_STRIDE + column;
        let b0 = coopLoadT<RightFragment>(&right[from_right], RIGHT_STRIDE);
        let b1 = coopLoadT<RightFragment>(&right[from_right + 16u], RIGHT_STRIDE);
        (*sums).s00 = coopMultiplyAdd(a0, b0, (*sums).s00);
        (*sums).s01 = coopMultiplyAdd(a0, b1, (*sums).s01);
        (*sums).s10 = coopMultiplyAdd(a1, b0, (*sums).s10);
        (*sums).s11 = coopMultiplyAdd(a1, b1, (*sums).s11);
    }
}

/// Hands the quarter over in four steps of one fragment. What is stored has a name, as naga 30 wants it.
fn store_quarter(sums: ptr<function, Sums>, place: Place) {
    let at = spare_or_own(place);
    let stride = 16u;
    let s00 = (*sums).s00;
    coopStoreT(s00, &finished[at], stride);
    hand_over(place, 0u, 0u, stride);
    let s01 = (*sums).s01;
    coopStoreT(s01, &finished[at], stride);
    hand_over(place, 0u, 16u, stride);
    let s10 = (*sums).s10;
    coopStoreT(s10, &finished[at], stride);
    hand_over(place, 16u, 0u, stride);
    let s11 = (*sums).s11;
    coopStoreT(s11, &finished[at], stride);
    hand_over(place, 16u, 16u, stride);
}
