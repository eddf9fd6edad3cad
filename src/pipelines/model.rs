//! A loaded model: the networks of a pipeline, whatever its kind.

use super::one_text::OneText;
use super::two_texts::TwoTexts;
use super::wording::Wording;
use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::models::latent_diffusion::ClassEmbedder;
use crate::models::tiny_autoencoder::TinyDecoder;
use crate::models::unet::{Context, UNet};
use crate::models::vae::{VaeDecoder, VaeEncoder};
use crate::models::vq::VqDecoder;
use crate::schedulers::SchedulerConfig;
use crate::tensor::{ElementType, Tensor};
use crate::weights::ModelKind;

/// The networks of a pipeline, and what decides its runs.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) conditioner: Conditioner,
    pub(super) unet: UNet,
    pub(super) decoder: Decoder,
    /// What makes small pictures of what is predicted meanwhile.
    pub(super) preview: Option<Decoder>,
    /// What makes latents of pictures; its weights are on the device only while it does.
    pub(super) encoder: Option<Box<VaeEncoder>>,
    pub(super) scheduler: SchedulerConfig,
}

impl Model {
    /// A U-Net that makes pictures of nothing but noise.
    pub(super) fn of_pixels(unet: UNet, scheduler: SchedulerConfig) -> Self {
        let decoder = Decoder::Pixels { channels: unet.config().in_channels };
        let conditioner = Conditioner::Nothing;
        Self { conditioner, unet, decoder, encoder: None, preview: None, scheduler }
    }

    /// Channels of the sample.
    pub(super) fn latent_channels(&self) -> usize {
        self.unet.config().out_channels
    }

    /// Channels that the U-Net reads beside the sample.
    pub(super) fn channels_beside(&self) -> usize {
        self.unet.config().in_channels.saturating_sub(self.latent_channels())
    }

    /// Whether the U-Net reads a mask and a masked picture's latents beside the sample.
    pub(super) fn reads_mask(&self) -> bool {
        self.channels_beside() > 0
    }
}

/// The values of a condition's inputs: ids of prompts or classes, and places.
pub(super) type Inputs = Vec<Vec<u32>>;

/// What a condition was made of.
#[derive(Debug)]
pub(super) struct Encoded {
    /// `[N, T, D]`.
    pub(super) hidden_states: Tensor,
    /// More channels of them, `[N, T, E]`.
    pub(super) second: Option<Tensor>,
    /// The prompt as one vector, `[N, P]`.
    pub(super) pooled: Option<Tensor>,
}

impl Encoded {
    pub(super) fn new(hidden_states: Tensor) -> Self {
        Self { hidden_states, second: None, pooled: None }
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        [&self.hidden_states].into_iter().chain(&self.second).chain(&self.pooled)
    }

    /// The same values in memory that outlives their recording.
    fn placed(self, recording: &mut Recording) -> Self {
        let mut place = |name: &str, tensor: Tensor| {
            let kept = Tensor::external(name, tensor.shape().clone(), tensor.element());
            recording.place(&tensor, &kept);
            kept
        };
        Self {
            hidden_states: place("hidden_states", self.hidden_states),
            second: self.second.map(|tensor| place("hidden_states_2", tensor)),
            pooled: self.pooled.map(|tensor| place("pooled", tensor)),
        }
    }

    pub(super) fn context(&self) -> Context<'_> {
        let Self { hidden_states, second, pooled } = self;
        Context { hidden_states: Some(hidden_states), second: second.as_ref(), pooled: pooled.as_ref() }
    }
}

/// What makes the context that the U-Net attends to.
#[derive(Debug)]
pub(super) enum Conditioner {
    Text(Box<OneText>),
    TwoTexts(Box<TwoTexts>),
    Classes(ClassEmbedder),
    Nothing,
}

impl Conditioner {
    pub(super) fn kind(&self) -> ModelKind {
        match self {
            Self::Text(_) | Self::TwoTexts(_) => ModelKind::TextToImage,
            Self::Classes(_) => ModelKind::ClassConditional,
            Self::Nothing => ModelKind::Unconditional,
        }
    }

    /// Classes that a caller may choose; 0 for other kinds.
    pub(super) fn classes(&self) -> usize {
        match self {
            Self::Classes(embedder) => embedder.classes() - 1,
            Self::Text(_) | Self::TwoTexts(_) | Self::Nothing => 0,
        }
    }

    /// Tokens of one context; 0 without any.
    pub(super) fn tokens(&self, wording: &Wording) -> usize {
        match self {
            Self::Text(text) => wording.chunks * text.0.tokenizer.max_length(),
            Self::TwoTexts(texts) => wording.chunks * texts.tokens(),
            Self::Classes(_) => 1,
            Self::Nothing => 0,
        }
    }

    /// Memory for what a context is made from.
    pub(super) fn inputs(&self, wording: &Wording) -> Vec<Tensor> {
        match self {
            Self::Text(text) => text.inputs(wording),
            Self::TwoTexts(texts) => texts.inputs(wording),
            Self::Classes(_) => vec![Tensor::external("ids", [wording.copies, 1], ElementType::U32)],
            Self::Nothing => Vec::new(),
        }
    }

    /// Records what text encoders make of its inputs, kept in memory that outlives the recording; `None` where the
    /// condition is no text.
    pub(super) fn record_text(
        &self,
        recording: &mut Recording,
        inputs: &[Tensor],
        wording: &Wording,
    ) -> Result<Option<Encoded>> {
        match self {
            Self::Text(_) | Self::TwoTexts(_) => {
                let encoded = self.record(recording, inputs, wording)?;
                Ok(encoded.map(|encoded| encoded.placed(recording)))
            }
            Self::Classes(_) | Self::Nothing => Ok(None),
        }
    }

    /// Records the context of its inputs.
    pub(super) fn record(
        &self,
        recording: &mut Recording,
        inputs: &[Tensor],
        wording: &Wording,
    ) -> Result<Option<Encoded>> {
        match self {
            Self::Text(text) => text.record(recording, inputs, wording).map(Some),
            Self::TwoTexts(texts) => texts.record(recording, inputs, wording).map(Some),
            Self::Classes(embedder) => {
                let states = embedder.record(&mut recording.scope("class_embedder"), &inputs[0])?; // [N, 1, D]
                Ok(Some(Encoded::new(states)))
            }
            Self::Nothing => Ok(None),
        }
    }
}

/// What makes pictures of the denoised sample.
#[derive(Debug)]
pub(super) enum Decoder {
    Vae(Box<VaeDecoder>),
    Tiny(Box<TinyDecoder>),
    Vq(Box<VqDecoder>),
    /// The sample is the picture, of so many channels.
    Pixels {
        channels: usize,
    },
}

impl Decoder {
    /// Channels of the sample.
    pub(super) fn sample_channels(&self) -> usize {
        match self {
            Self::Vae(vae) => vae.config().latent_channels,
            Self::Tiny(tiny) => tiny.config().latent_channels,
            Self::Vq(vq) => vq.config().autoencoder.embed_channels,
            Self::Pixels { channels } => *channels,
        }
    }

    /// Pixels along one side for every value of the sample.
    pub(super) fn upsampling(&self) -> usize {
        match self {
            Self::Vae(vae) => vae.config().upsampling(),
            Self::Tiny(tiny) => tiny.config().upsampling(),
            Self::Vq(vq) => vq.config().autoencoder.upsampling(),
            Self::Pixels { .. } => 1,
        }
    }

    /// The side of the tiles that it decodes in where that is asked for, in latents; `None` if it cannot be cut.
    pub(super) fn tile_side(&self) -> Option<usize> {
        match self {
            Self::Vae(vae) => Some(vae.config().tile_side()),
            Self::Tiny(tiny) => Some(tiny.config().tile_side()),
            Self::Vq(_) | Self::Pixels { .. } => None,
        }
    }

    /// What the sample is divided by before it is decoded.
    pub(super) fn scaling_factor(&self) -> f32 {
        match self {
            Self::Vae(vae) => vae.config().scaling_factor,
            Self::Tiny(tiny) => tiny.config().scaling_factor,
            Self::Vq(vq) => vq.config().autoencoder.scaling_factor,
            Self::Pixels { .. } => 1.0,
        }
    }

    /// How the sample is stored for decoding.
    pub(super) fn sample_element(&self) -> ElementType {
        match self {
            Self::Vae(vae) => vae.element(),
            Self::Tiny(tiny) => tiny.element(),
            Self::Vq(_) | Self::Pixels { .. } => ElementType::F32,
        }
    }

    /// Records the picture of a sample `[N, h, w, C]`: values of about -1 to 1, `[N, H, W, 1 or 3]`.
    pub(super) fn record(&self, recording: &mut Recording, sample: &Tensor) -> Result<Tensor> {
        match self {
            Self::Vae(vae) => vae.record(&mut recording.scope("vae"), sample), // [N, H, W, 3]
            Self::Tiny(tiny) => tiny.record(&mut recording.scope("vae"), sample), // [N, H, W, 3]
            Self::Vq(vq) => vq.record(&mut recording.scope("vq"), sample),     // [N, H, W, 3]
            Self::Pixels { .. } => Ok(sample.clone()),
        }
    }
}
