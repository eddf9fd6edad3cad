//! How values are stored in a file, and what they are.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::Dtype;

/// How the values of one tensor are stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// IEEE 754 binary16.
    F16,
    /// The upper half of an `f32`.
    BF16,
    /// IEEE 754 binary32.
    F32,
    /// 4 bits of exponent, 3 of mantissa; no infinity. Micikevicius et al. 2022, <https://arxiv.org/abs/2209.05433>.
    F8E4M3,
    /// The upper half of an `f16`; as above.
    F8E5M2,
    /// What no layer reads.
    Other(Dtype),
}

impl Stored {
    /// What a file calls it.
    pub(super) fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::F32 => Self::F32,
            Dtype::F8_E4M3 => Self::F8E4M3,
            Dtype::F8_E5M2 => Self::F8E5M2,
            other => Self::Other(other),
        }
    }

    /// Whether layers can read it.
    pub(super) fn is_readable(self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// Why layers cannot read it, if they cannot.
    pub(super) fn problem(self) -> Option<String> {
        let Self::Other(dtype) = self else { return None };
        let integers =
            [Dtype::I64, Dtype::I32, Dtype::I16, Dtype::I8, Dtype::U64, Dtype::U32, Dtype::U16, Dtype::U8];
        let kind = if integers.contains(&dtype) { "holds integers" } else { "is stored" };
        Some(format!("{kind} as {dtype:?}; supported are F32, F16, BF16, F8_E4M3 and F8_E5M2"))
    }

    /// The one value of these bytes, where it is a whole number or has 64 bits.
    pub(super) fn single(self, bytes: &[u8]) -> Option<f64> {
        let Self::Other(dtype) = self else { return None };
        match dtype {
            Dtype::I64 => {
                let value = i32::try_from(i64::from_le_bytes(bytes.try_into().ok()?)).ok()?;
                Some(f64::from(value))
            }
            Dtype::I32 => Some(f64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
            Dtype::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?)).filter(|value| value.is_finite()),
            _ => None,
        }
    }

    /// Bytes of one value that layers can read.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::F16 | Self::BF16 => 2,
            Self::F32 | Self::Other(_) => 4,
        }
    }

    /// Converts values from the bytes of a file, of which there are as many as the values need.
    pub(super) fn decode(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::F32 => each(bytes, values, f32::from_le_bytes),
            Self::BF16 => each(bytes, values, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Self::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
                Ok(halves) => halves.convert_to_f32_slice(values),
                Err(_) => each(bytes, values, |bytes| f16::from_le_bytes(bytes).to_f32()),
            },
            Self::F8E4M3 => each(bytes, values, |[byte]| F8E4M3[usize::from(byte)]),
            Self::F8E5M2 => each(bytes, values, |[byte]| f16::from_le_bytes([0, byte]).to_f32()),
            Self::Other(_) => unreachable!("other types are refused when a layer asks for them"),
        }
    }
}

fn each<const SIZE: usize>(bytes: &[u8], values: &mut [f32], convert: impl Fn([u8; SIZE]) -> f32) {
    for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value = convert(*bytes);
    }
}

/// The value of every byte of `F8_E4M3`.
static F8E4M3: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut byte: u32 = 0;
    while byte < 256 {
        let (exponent, mantissa) = ((byte >> 3) & 15, byte & 7);
        let value = if exponent == 15 && mantissa == 7 {
            f32::NAN
        } else if exponent == 0 {
            // Multiples of the smallest value, 2^-9.
            mantissa as f32 / 512.0
        } else {
            // The bias of the exponent is 7 here, and 127 in an f32.
            f32::from_bits(((exponent + 120) << 23) | (mantissa << 20))
        };
        table[byte as usize] = if byte < 128 { value } else { -value };
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::Stored;

    fn decoded(stored: Stored, byte: u8) -> f32 {
        let mut value = [0.0];
        stored.decode(&[byte], &mut value);
        value[0]
    }

    #[test]
    fn eight_bits_have_the_values_of_their_paper() {
        let rows = [
            (Stored::F8E4M3, 0x00, 0.0),
            (Stored::F8E4M3, 0x01, 0.001_953_125),
            (Stored::F8E4M3, 0x07, 0.013_671_875),
            (Stored::F8E4M3, 0x08, 0.015_625),
            (Stored::F8E4M3, 0x38, 1.0),
            (Stored::F8E4M3, 0xb9, -1.125),
            (Stored::F8E4M3, 0x7e, 448.0),
            (Stored::F8E5M2, 0x01, 0.000_015_258_789),
            (Stored::F8E5M2, 0x3c, 1.0),
            (Stored::F8E5M2, 0xc1, -2.5),
            (Stored::F8E5M2, 0x7b, 57_344.0),
        ];
        for (stored, byte, value) in rows {
            assert_eq!(decoded(stored, byte), value, "{stored:?} {byte:#x}");
        }
        for (stored, byte) in [(Stored::F8E4M3, 0x7f), (Stored::F8E4M3, 0xff), (Stored::F8E5M2, 0x7e)] {
            assert!(decoded(stored, byte).is_nan(), "{stored:?} {byte:#x}");
        }
        assert!(decoded(Stored::F8E5M2, 0x7c).is_infinite(), "the infinity of F8_E5M2");
    }
}
