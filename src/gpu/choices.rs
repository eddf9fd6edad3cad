//! What kernels are chosen by: a family, facts of the device, and what tuning found. Touches no device.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tensor::ElementType;

/// A way to write kernels; a device profile picks one, and each recorder its variant for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Family {
    /// Registers and workgroup memory: every GPU.
    #[default]
    Tiled,
    /// Workgroups of one 8-lane subgroup that broadcasts in registers: software adapters, where a lane is a lane
    /// of the CPU's vectors and workgroup memory is slow.
    Broadcast,
    /// Products on cooperative matrices, which GPUs call tensor cores: where they multiply values of 16 bits.
    Cooperative(Fragments),
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tiled => f.write_str("tiled"),
            Self::Broadcast => f.write_str("broadcast"),
            Self::Cooperative(Fragments { edge, .. }) => write!(f, "cooperative {edge}x{edge}"),
        }
    }
}

/// The cooperative matrices of a device, and the workgroups that suit them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fragments {
    /// Rows, columns and terms of a matrix: 8 or 16.
    pub edge: u32,
    /// Lanes of a workgroup: four subgroups, or more where the size of a subgroup is not known beforehand.
    pub lanes: u32,
}

/// What sort of device it is, as far as the choice of kernels goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceClass {
    /// Many cores, which want many workgroups of much work each.
    #[default]
    Discrete,
    /// Few cores, with few registers.
    Integrated,
    /// A program on the CPU.
    Software,
}

/// The facts of a device that limit what can be chosen. The default is what every device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// What sort of device it is.
    pub class: DeviceClass,
    /// The most lanes of a workgroup.
    pub workgroup_lanes: u32,
    /// The most bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Whether subgroups can be reduced in registers, whatever their size.
    pub subgroups: bool,
    /// The largest tensor that can be bound, in bytes.
    pub binding_limit: u64,
}

impl Default for DeviceFacts {
    fn default() -> Self {
        let class = DeviceClass::default();
        Self {
            class,
            workgroup_lanes: 256,
            workgroup_bytes: 16 << 10,
            subgroups: false,
            binding_limit: 128 << 20,
        }
    }
}

/// The operations that are matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Rows of tokens times a matrix.
    Matmul,
    /// A convolution, read as a product: a row for every output pixel, a term for every tap and channel.
    Conv2d,
}

/// A matrix product `[rows, terms] · [terms, columns]` as a choice sees it: its extents and its element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Product {
    /// What it is.
    pub operation: Operation,
    /// Images, height and width of what is read; one row of pixels for a plain product.
    pub image: [u32; 3],
    /// Channels of what is read: the terms of one tap.
    pub channels: u32,
    /// Height and width of the window, `[1, 1]` for a plain product.
    pub window: [u32; 2],
    /// Distance between neighbouring windows.
    pub stride: u32,
    /// Rows of the output.
    pub rows: u32,
    /// Columns of the weight.
    pub columns: u32,
    /// Whether the second half of the columns gates the first, in the same kernel.
    pub gated: bool,
    /// How what is read and the output are stored.
    pub element: ElementType,
    /// How the weight is stored: the same way, or in 8 bits.
    pub weight: ElementType,
}

impl Product {
    /// Length of the sums.
    #[must_use]
    pub fn terms(&self) -> u64 {
        u64::from(self.channels) * u64::from(self.window[0]) * u64::from(self.window[1])
    }
}

impl fmt::Display for Product {
    /// `matmul 8192x320x2560 gated f16`, `conv2d 3x3 320->640 at 2x32x32 /2 f32`: the key of a tuned choice.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, columns, rows, stride, .. } = *self;
        match self.operation {
            Operation::Matmul => write!(f, "matmul {rows}x{channels}x{columns}")?,
            Operation::Conv2d => {
                let ([images, height, width], [window_height, window_width]) = (self.image, self.window);
                write!(f, "conv2d {window_height}x{window_width} {channels}->{columns} ")?;
                write!(f, "at {images}x{height}x{width}")?;
                if stride > 1 {
                    write!(f, " /{stride}")?;
                }
            }
        }
        write!(f, "{} {}", if self.gated { " gated" } else { "" }, self.element)?;
        if self.weight == self.element { Ok(()) } else { write!(f, ", {} weights", self.weight) }
    }
}

/// How a product is cut into workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Tiling {
    /// The `tiled` family.
    Tiled {
        /// Rows and columns of a workgroup.
        tile: [u32; 2],
        /// Rows and columns of a lane.
        lane: [u32; 2],
        /// Terms that are staged at once.
        depth: u32,
        /// Ranges of terms that are summed by workgroups of their own, and added up afterwards.
        parts: u32,
    },
    /// The `broadcast` family.
    Broadcast {
        /// Rows and columns of a workgroup.
        block: [u32; 2],
        /// Whether neighbouring workgroups share their weights instead of their rows.
        rows_first: bool,
    },
    /// The `cooperative` family, which has one tile.
    Cooperative(Fragments),
}

impl fmt::Display for Tiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Tiled { tile: [rows, columns], lane: [lane_rows, lane_columns], depth, parts } => {
                write!(f, "tile {rows}x{columns}, {lane_rows}x{lane_columns} a lane, depth {depth}")?;
                if parts > 1 { write!(f, ", {parts} parts") } else { Ok(()) }
            }
            Self::Broadcast { block: [rows, columns], rows_first } => {
                let order = if rows_first { "rows" } else { "columns" };
                write!(f, "block {rows}x{columns}, {order} first")
            }
            Self::Cooperative(Fragments { edge, lanes }) => {
                write!(f, "tile 64x64, fragments {edge}x{edge}, {lanes} lanes")
            }
        }
    }
}

/// Where a choice comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The rules for this class of device.
    Default,
    /// It was the fastest that was measured on this device.
    Tuned,
    /// The caller wanted it for every product that it fits.
    Forced,
}

/// What was chosen for a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The product.
    pub product: Product,
    /// What was chosen.
    pub tiling: Tiling,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Choice {
    /// `conv2d 3x3 320->320 at 2x64x64 f16: tile 128x64, 8x8 a lane, depth 16 (default)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            Reason::Default => "default",
            Reason::Tuned => "tuned",
            Reason::Forced => "forced",
        };
        write!(f, "{}: {} ({reason})", self.product, self.tiling)
    }
}

/// What tuning found: the best tiling by the product's name.
pub type Tuned = BTreeMap<String, Tiling>;

/// What the kernels of a recording are chosen by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// The way in which kernels are written.
    pub family: Family,
    /// What the device can do.
    pub facts: DeviceFacts,
    /// What is known to be better than the default.
    pub tuned: Tuned,
    /// What is wanted for every product that it fits; for tests, and for tuning itself.
    pub forced: Option<Tiling>,
}

impl Choices {
    /// The family that products of such values are chosen from: cooperative matrices multiply 16-bit values only.
    #[must_use]
    pub fn product_family(&self, element: ElementType) -> Family {
        match self.family {
            Family::Cooperative(_) if element != ElementType::F16 => Family::Tiled,
            family => family,
        }
    }

    /// What is wanted besides the default, if anything, in the order in which it counts. Whether it fits is for the
    /// kernel to say.
    pub(crate) fn wanted(&self, product: &Product) -> impl Iterator<Item = (Tiling, Reason)> {
        let forced = self.forced.map(|tiling| (tiling, Reason::Forced));
        let tuned = self.tuned.get(&product.to_string()).map(|&tiling| (tiling, Reason::Tuned));
        forced.into_iter().chain(tuned)
    }
}

impl From<Family> for Choices {
    fn from(family: Family) -> Self {
        Self { family, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCT: Product = Product {
        operation: Operation::Matmul,
        image: [1, 1, 64],
        channels: 320,
        window: [1, 1],
        stride: 1,
        rows: 64,
        columns: 2560,
        gated: true,
        element: ElementType::F16,
        weight: ElementType::F16,
    };

    const TILING: Tiling = Tiling::Tiled { tile: [64, 64], lane: [8, 8], depth: 16, parts: 3 };

    #[test]
    fn keys_tell_products_apart() {
        let convolution = Product {
            operation: Operation::Conv2d,
            image: [2, 32, 16],
            window: [3, 3],
            stride: 2,
            gated: false,
            ..PRODUCT
        };
        assert_eq!(PRODUCT.to_string(), "matmul 64x320x2560 gated f16");
        assert_eq!(convolution.to_string(), "conv2d 3x3 320->2560 at 2x32x16 /2 f16");
        let int8 = Product { weight: ElementType::Int8, ..PRODUCT };
        assert_eq!(int8.to_string(), "matmul 64x320x2560 gated f16, int8 weights");
        let others = [
            Product { rows: 65, ..PRODUCT },
            Product { columns: 64, ..PRODUCT },
            Product { gated: false, ..PRODUCT },
            Product { element: ElementType::F32, weight: ElementType::F32, ..PRODUCT },
            Product { weight: ElementType::Int8, ..PRODUCT },
            Product { stride: 1, ..convolution },
            Product { image: [1, 32, 16], ..convolution },
            Product { window: [1, 1], ..convolution },
        ];
        let keys: std::collections::BTreeSet<_> =
            others.iter().chain([&PRODUCT, &convolution]).map(ToString::to_string).collect();
        assert_eq!(keys.len(), others.len() + 2, "{keys:?}");
    }

    #[test]
    fn a_choice_is_one_line_and_says_why() {
        let choice = Choice { product: PRODUCT, tiling: TILING, reason: Reason::Tuned };
        let expected = "matmul 64x320x2560 gated f16: tile 64x64, 8x8 a lane, depth 16, 3 parts (tuned)";
        assert_eq!(choice.to_string(), expected);
    }

    #[test]
    fn what_is_forced_counts_before_what_was_tuned() {
        let forced = Tiling::Broadcast { block: [8, 32], rows_first: true };
        let tuned = Tuned::from([(PRODUCT.to_string(), TILING)]);
        let choices = Choices { tuned, forced: Some(forced), ..Choices::default() };
        let wanted: Vec<_> = choices.wanted(&PRODUCT).collect();
        assert_eq!(wanted, [(forced, Reason::Forced), (TILING, Reason::Tuned)]);
        assert_eq!(choices.wanted(&Product { rows: 1, ..PRODUCT }).count(), 1);
    }

    #[test]
    fn tilings_survive_json() {
        let broadcast = Tiling::Broadcast { block: [16, 8], rows_first: false };
        for tiling in [TILING, broadcast, Tiling::Cooperative(Fragments { edge: 16, lanes: 128 })] {
            let text = serde_json::to_string(&tiling).unwrap();
            assert_eq!(serde_json::from_str::<Tiling>(&text).unwrap(), tiling);
        }
    }
}
