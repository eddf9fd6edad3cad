//! Normal noise as PyTorch draws it on the CPU.

/// Numbers in the state of the Mersenne Twister.
const STATE: usize = 624;
/// Distance of the number that is mixed in.
const SHIFT: usize = 397;
/// PyTorch fills tensors of at least this many elements in blocks of this size, and smaller ones pair by pair.
const BLOCK: usize = 16;

/// A random generator that draws what `torch.Generator().manual_seed(seed)` draws.
///
/// Matsumoto & Nishimura 1998, *Mersenne Twister*, <https://doi.org/10.1145/272991.272995>; Box & Muller 1958,
/// <https://doi.org/10.1214/aoms/1177706645>.
///
/// ```
/// let mut generator = deepcache::random::TorchGenerator::new(0);
/// assert!((generator.normal(1)[0] - 1.540_996).abs() < 1e-6);
/// ```
#[derive(Clone)]
pub struct TorchGenerator {
    state: [u32; STATE],
    /// The next number of the state to hand out.
    position: usize,
    /// The second value of the last pair, where a small draw needed only the first.
    spare: Option<f64>,
}

impl std::fmt::Debug for TorchGenerator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TorchGenerator").field("position", &self.position).finish_non_exhaustive()
    }
}

impl TorchGenerator {
    /// A generator at the start of the sequence of a seed, of which PyTorch reads the low 32 bits.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "PyTorch reads the low 32 bits")]
        let mut previous = seed as u32;
        let mut state = [previous; STATE];
        for (index, number) in (0_u32..).zip(&mut state).skip(1) {
            previous = (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(index);
            *number = previous;
        }
        Self { state, position: STATE, spare: None }
    }

    /// One `torch.randn` of `count` elements in f32: mean 0, variance 1, in row-major order.
    ///
    /// The size of a draw matters: one draw of 32 differs from two of 16 in nothing, but from 32 of 1 in
    /// everything.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK {
            (0..count).map(|_| single(self.normal_of_pair())).collect()
        } else {
            self.normal_of_blocks(count)
        }
    }

    /// The small way: pairs in f64, of which the second value waits for the next element, or draw.
    fn normal_of_pair(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let angle = std::f64::consts::TAU * self.uniform_double();
        let radius = (-2.0 * (-self.uniform_double()).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }

    /// The large way: uniform numbers in f32, turned block by block, the first half of a block into radii and the
    /// second into angles. Where the blocks do not come out even, the last block is drawn anew and overlaps the
    /// one before.
    fn normal_of_blocks(&mut self, count: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform_single()).collect();
        for block in values.chunks_exact_mut(BLOCK) {
            turn(block);
        }
        if !count.is_multiple_of(BLOCK) {
            let last = &mut values[count - BLOCK..];
            for value in &mut *last {
                *value = self.uniform_single();
            }
            turn(last);
        }
        values
    }

    /// 24 bits, from 0 to below 1.
    fn uniform_single(&mut self) -> f32 {
        let bits = self.next() & 0x00ff_ffff;
        #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
        let number = bits as f32;
        number / 16_777_216.0
    }

    /// 53 bits, from 0 to below 1.
    fn uniform_double(&mut self) -> f64 {
        let high = u64::from(self.next());
        let bits = ((high << 32) | u64::from(self.next())) & ((1 << 53) - 1);
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let number = bits as f64;
        number / 9_007_199_254_740_992.0
    }

    /// The next number of the Mersenne Twister, tempered.
    fn next(&mut self) -> u32 {
        if self.position == STATE {
            self.twist();
            self.position = 0;
        }
        let mut number = self.state[self.position];
        self.position += 1;
        number ^= number >> 11;
        number ^= (number << 7) & 0x9d2c_5680;
        number ^= (number << 15) & 0xefc6_0000;
        number ^ (number >> 18)
    }

    fn twist(&mut self) {
        for index in 0..STATE {
            let joined = (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % STATE] & 0x7fff_ffff);
            let mixed = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + SHIFT) % STATE] ^ (joined >> 1) ^ mixed;
        }
    }
}

/// Turns a block of uniform numbers into normal ones.
fn turn(block: &mut [f32]) {
    let (radii, angles) = block.split_at_mut(BLOCK / 2);
    for (radius, angle) in radii.iter_mut().zip(angles) {
        let length = (-2.0 * (1.0 - *radius).ln()).sqrt();
        let (sine, cosine) = (std::f32::consts::TAU * *angle).sin_cos();
        (*radius, *angle) = (length * cosine, length * sine);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "PyTorch rounds here too")]
fn single(number: f64) -> f32 {
    number as f32
}
