//! Normal noise as PyTorch draws it on a CUDA device.

/// Multipliers and key increments of Philox 4x32.
const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
const INCREMENTS: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

const ROUNDS: usize = 10;

/// A random generator that draws what `torch.Generator("cuda").manual_seed(seed)` draws: the *GPU seed* of
/// AUTOMATIC1111 and stable-diffusion.cpp.
///
/// Agrees with them for draws that fit one kernel launch, as those of pictures do.
/// Salmon, Moraes, Dror & Shaw 2011, *Parallel Random Numbers: As Easy as 1, 2, 3*,
/// <https://doi.org/10.1145/2063384.2063405>.
///
/// ```
/// let mut generator = deepcache::random::PhiloxGenerator::new(0);
/// assert!((generator.normal(1)[0] + 0.924_662_4).abs() < 1e-6);
/// ```
#[derive(Clone, Debug)]
pub struct PhiloxGenerator {
    key: [u32; 2],
    /// Draws so far.
    draws: u32,
}

impl PhiloxGenerator {
    /// A generator at the start of the sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the halves of the seed")]
        let key = [seed as u32, (seed >> 32) as u32];
        Self { key, draws: 0 }
    }

    /// One `torch.randn` of `count` elements in f32: mean 0, variance 1, in row-major order.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        let draw = self.draws;
        self.draws = self.draws.wrapping_add(1);
        (0..count)
            .map(|index| {
                #[expect(clippy::cast_possible_truncation, reason = "the low half of the counter")]
                let words = self.random([draw, 0, index as u32, 0]);
                normal_of([words[0], words[1]])
            })
            .collect()
    }

    /// Four random words of one counter.
    fn random(&self, mut counter: [u32; 4]) -> [u32; 4] {
        let mut key = self.key;
        for round in 0..ROUNDS {
            if round > 0 {
                key = [0, 1].map(|half| key[half].wrapping_add(INCREMENTS[half]));
            }
            let [first, second] = [0, 1].map(|half| u64::from(counter[2 * half]) * MULTIPLIERS[half]);
            #[expect(clippy::cast_possible_truncation, reason = "the halves of the products")]
            let (low, high) = ([first as u32, second as u32], [(first >> 32) as u32, (second >> 32) as u32]);
            counter = [high[1] ^ counter[1] ^ key[0], low[1], high[0] ^ counter[3] ^ key[1], low[0]];
        }
        counter
    }
}

/// Box & Muller's sine branch, as CUDA's library has it: uniform numbers from the middle of each of 2^32 steps.
fn normal_of([radius, angle]: [u32; 2]) -> f32 {
    const STEP: f32 = 2.328_306_4e-10;
    const TURN: f32 = STEP * std::f32::consts::TAU;
    #[expect(clippy::cast_precision_loss, reason = "CUDA rounds here too")]
    let (radius, angle) = (radius as f32, angle as f32);
    let length = (-2.0 * (radius * STEP + STEP / 2.0).ln()).sqrt();
    length * (angle * TURN + TURN / 2.0).sin()
}
