//! diffusers' `ResnetBlock2D`.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::add_time::add_time;
use crate::kernels::conv2d::{Conv2dConfig, Padding, TimeRow};
use crate::kernels::group_norm::GroupNormConfig;
use crate::nn::{Convolution, GroupNorm, Linear};
use crate::tensor::{ElementType, Tensor};
use crate::weights::{Loader, Weights};

/// What the blocks of one model share.
#[derive(Clone, Copy, Debug)]
pub struct ResnetConfig {
    /// Groups of the norms.
    pub groups: usize,
    /// Epsilon of the norms.
    pub epsilon: f32,
    /// Width of the time embedding; `None` in a VAE.
    pub time_channels: Option<usize>,
}

/// The time projections of a run.
#[derive(Clone, Copy, Debug)]
pub struct TimeTables<'a> {
    /// A table for every block of the model: `[S, C]`, or `[S * N, C]`.
    pub tables: &'a [Tensor],
    /// `[1]`, u32: this step.
    pub step: &'a Tensor,
    /// Whether every image has a row of its own.
    pub per_image: bool,
}

/// Two normalised convolutions beside a shortcut; the time embedding is added between them.
#[derive(Clone, Debug)]
pub struct ResnetBlock {
    name: String,
    norm1: GroupNorm,
    conv1: Convolution,
    time_projection: Option<Linear>,
    norm2: GroupNorm,
    conv2: Convolution,
    shortcut: Option<Convolution>,
    channels: usize,
    element: ElementType,
    index: usize,
}

impl ResnetBlock {
    /// The block called `name`, from `inputs` to `outputs` channels, whose time projections are number `index`
    /// among those of the model.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        [inputs, outputs]: [usize; 2],
        config: &ResnetConfig,
        index: usize,
    ) -> Result<Self> {
        let at = weights.child(name);
        let norm = GroupNormConfig { groups: config.groups, epsilon: config.epsilon, silu: true };
        let three = Conv2dConfig { kernel: [3, 3], stride: 1, padding: Padding::same(1) };
        let one = Conv2dConfig { kernel: [1, 1], stride: 1, padding: Padding::same(0) };
        let time_projection = match config.time_channels {
            Some(channels) => Some(Linear::load(&at, loader, "time_emb_proj", channels, outputs)?),
            None => None,
        };
        let shortcut = if inputs == outputs {
            None
        } else {
            Some(Convolution::load(&at, loader, "conv_shortcut", inputs, outputs, one)?)
        };
        Ok(Self {
            name: name.to_owned(),
            norm1: GroupNorm::load(&at, loader, "norm1", inputs, norm)?,
            conv1: Convolution::load(&at, loader, "conv1", inputs, outputs, three)?,
            time_projection,
            norm2: GroupNorm::load(&at, loader, "norm2", outputs, norm)?,
            conv2: Convolution::load(&at, loader, "conv2", outputs, outputs, three)?,
            shortcut,
            channels: outputs,
            element: loader.element(),
            index,
        })
    }

    /// Memory for the time projections: `[rows, C]`.
    #[must_use]
    pub fn time_table(&self, label: &str, rows: usize) -> Tensor {
        Tensor::external(format!("{label}/{}", self.name), [rows, self.channels], self.element)
    }

    /// Records the projections of the time embeddings `[S, D]`, already activated, into their table.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the embeddings do not fit.
    pub fn record_time(
        &self,
        recording: &mut Recording,
        embeddings: &Tensor,
        tables: &[Tensor],
    ) -> Result<()> {
        let Some(projection) = &self.time_projection else { return Ok(()) };
        let recording = &mut recording.scope(&self.name);
        let table = projection.record(recording, embeddings)?; // [S, C]
        recording.place(&table, &tables[self.index]);
        Ok(())
    }

    /// Records the block on `input` with `second` behind its channels.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the inputs do not fit.
    pub fn record(
        &self,
        recording: &mut Recording,
        input: &Tensor,
        second: Option<&Tensor>,
        time: Option<TimeTables<'_>>,
    ) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let hidden = self.norm1.record(recording, input, second)?; // [N, H, W, I]
        let per_image = time.is_some_and(|time| time.per_image);
        let time = time.map(|time| TimeRow { table: &time.tables[self.index], step: time.step });
        let fused = time.filter(|_| !per_image);
        let mut hidden = self.conv1.record_fused(recording, &hidden, None, fused, None)?; // [N, H, W, C]
        if let Some(time) = time.filter(|_| per_image) {
            hidden = add_time(recording, &hidden, time)?; // [N, H, W, C]
        }
        let hidden = self.norm2.record(recording, &hidden, None)?; // [N, H, W, C]
        let shortcut = match &self.shortcut {
            Some(shortcut) => &shortcut.record_fused(recording, input, second, None, None)?, // [N, H, W, C]
            None => input,
        };
        let output = self.conv2.record_fused(recording, &hidden, None, None, Some(shortcut))?; // [N, H, W, C]
        recording.mark(&output);
        Ok(output)
    }
}
