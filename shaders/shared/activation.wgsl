//! activation: the element-wise functions of the models, in f32.

// 0 none, 1 silu, 2 gelu (with erf), 3 quick_gelu, 4 relu, 5 soft_limit, 6 from_unit
override ACTIVATION: u32 = 0u;

fn sigmoid(x: f32) -> f32 {
    // exp overflows to infinity for large negative x, and the quotient is 0 then, as it should be
    return 1.0 / (1.0 + exp(-x));
}

/// The error function, Numerical Recipes' rational Chebyshev fit of erfc: relative error below 1.2e-7.
fn error_function(x: f32) -> f32 {
    let z = abs(x);
    let t = 1.0 / (1.0 + 0.5 * z);
    let p = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806
        + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
    let complement = t * exp(-z * z + p);
    return select(complement - 1.0, 1.0 - complement, x >= 0.0);
}

fn gelu(x: f32) -> f32 {
    return 0.5 * x * (1.0 + error_function(x * 0.70710678));
}

fn activate(x: f32) -> f32 {
    switch ACTIVATION {
        case 1u: { return x * sigmoid(x); }
        case 2u: { return gelu(x); }
        case 3u: { return x * sigmoid(1.702 * x); }
        case 4u: { return max(x, 0.0); }
        // tanh is 1 to f32 beyond 9, and some drivers compute it with exp, which overflows
        case 5u: { return 3.0 * tanh(clamp(x / 3.0, -10.0, 10.0)); }
        case 6u: { return 2.0 * x - 1.0; }
        default: { return x; }
    }
}
