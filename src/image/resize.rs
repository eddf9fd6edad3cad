//! Pictures of another size, as `PIL.Image.resize` makes them with its Lanczos filter.
//!
//! Two passes, across and then down, each rounded to bytes, with weights of 22 bits behind the point.
//! diffusers' `VaeImageProcessor` resizes so. Pillow 13 goes down before it goes across where it finds that less work; bytes
//! then differ by rounding.

/// Lobes of the filter to either side.
const SUPPORT: f64 = 3.0;

/// Bits of a weight behind the point.
const PRECISION: u32 = 22;

/// What one value of the result is made of.
struct Window {
    first: usize,
    weights: Vec<i64>,
}

/// The values `[H, W, C]` of a picture `[h, w, C]`.
///
/// A side that stays as it is is not filtered.
///
/// # Panics
/// If the values do not fill the size, or a side is 0.
pub(super) fn resize(pixels: &[u8], from: [usize; 2], to: [usize; 2], channels: usize) -> Vec<u8> {
    let [height, width] = from;
    assert_eq!(pixels.len(), height * width * channels, "the values fill the size");
    let across = if to[1] == width {
        pixels.to_vec()
    } else {
        let windows = windows(width, to[1]);
        let row = |row: &[u8]| -> Vec<u8> {
            let value = |window: &Window, channel: usize| {
                window.sum(|offset| row[(window.first + offset) * channels + channel])
            };
            windows
                .iter()
                .flat_map(|window| (0..channels).map(move |channel| value(window, channel)))
                .collect()
        };
        pixels.chunks_exact(width * channels).flat_map(row).collect()
    };
    if to[0] == height {
        return across;
    }
    let length = to[1] * channels;
    let row = |window: &Window| -> Vec<u8> {
        let value = |place: usize| window.sum(|offset| across[(window.first + offset) * length + place]);
        (0..length).map(value).collect()
    };
    windows(height, to[0]).iter().flat_map(row).collect()
}

impl Window {
    fn sum(&self, value: impl Fn(usize) -> u8) -> u8 {
        let weighted =
            self.weights.iter().enumerate().map(|(offset, weight)| weight * i64::from(value(offset)));
        let sum = (1_i64 << (PRECISION - 1)) + weighted.sum::<i64>();
        #[expect(clippy::cast_sign_loss, reason = "0 to 255")]
        let byte = (sum >> PRECISION).clamp(0, 255) as u8;
        byte
    }
}

/// The values of a side of `from` that make each of a side of `to`, and their weights.
#[expect(clippy::cast_precision_loss, reason = "sides of pictures are far below 2^53")]
fn windows(from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let window = |index: usize| {
        let center = (index as f64 + 0.5) * scale;
        let first = whole(center - SUPPORT * stretch + 0.5);
        let end = whole(center + SUPPORT * stretch + 0.5).min(from);
        let weight = |place: usize| lanczos((place as f64 - center + 0.5) / stretch);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let weights = weights.into_iter().map(|weight| {
            let fixed = weight / sum * f64::from(1_u32 << PRECISION);
            #[expect(clippy::cast_possible_truncation, reason = "about 22 bits")]
            let fixed = fixed.round() as i64;
            fixed
        });
        Window { first, weights: weights.collect() }
    };
    (0..to).map(window).collect()
}

/// The whole part; 0 of what is below.
fn whole(number: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sides of pictures")]
    let whole = number.max(0.0) as usize;
    whole
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| {
        let angle = x * std::f64::consts::PI;
        if x == 0.0 { 1.0 } else { angle.sin() / angle }
    };
    if (-SUPPORT..SUPPORT).contains(&x) { sinc(x) * sinc(x / SUPPORT) } else { 0.0 }
}
