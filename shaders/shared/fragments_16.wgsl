//! fragments_16: cooperative matrices of 16x16 values, which a subgroup holds together.

alias LeftFragment = coop_mat16x16<f16, A>;
alias RightFragment = coop_mat16x16<f16, B>;
alias SumFragment = coop_mat16x16<f32, C>;
