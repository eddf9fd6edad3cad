//! fragments_8: cooperative matrices of 8x8 values, which a subgroup holds together.

alias LeftFragment = coop_mat8x8<f16, A>;
alias RightFragment = coop_mat8x8<f16, B>;
alias SumFragment = coop_mat8x8<f32, C>;
