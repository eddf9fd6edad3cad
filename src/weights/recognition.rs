//! What a checkpoint in one file holds, told by the names and shapes of its tensors.

use super::checkpoint::Checkpoint;

/// What a checkpoint in one file holds. The name of the file is never asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckpointKind {
    /// Stable Diffusion 1.x under the names of the original code.
    StableDiffusion1,
    /// Stable Diffusion 2.x, whose text encoder is that of `OpenCLIP`.
    StableDiffusion2,
    /// Stable Diffusion XL.
    StableDiffusionXl,
    /// The refiner of Stable Diffusion XL.
    StableDiffusionXlRefiner,
    /// A U-Net that also reads a picture to be edited.
    InstructPix2Pix,
    /// A U-Net that also reads a map of depth.
    Depth,
    /// A U-Net that also reads a small picture.
    Upscaler,
    /// A U-Net that also reads something else.
    OtherInputs,
    /// Latent diffusion from text with a BERT encoder, before Stable Diffusion.
    LatentDiffusionOnText,
    /// Class-conditional latent diffusion.
    ClassConditional,
    /// A latent diffusion U-Net without what makes its context.
    UNet,
    /// A transformer in the place of the U-Net: Stable Diffusion 3, Flux.
    Transformer,
    /// A U-Net that makes pixels, of the original DDIM code.
    OriginalDdpm,
    /// A network of a diffusers directory without the others.
    DiffusersUNet,
    /// An autoencoder, by itself.
    Vae,
    /// The decoder, the encoder or both of a tiny autoencoder (TAESD).
    TinyAutoencoder,
    /// A CLIP text encoder, by itself.
    TextEncoder,
    /// Low-rank changes of another model.
    Lora,
    /// A network that steers another model.
    ControlNet,
    /// A word for the text encoder.
    TextualInversion,
    /// Weights of 8 bits that are to be multiplied by scales beside them.
    Scaled8Bit,
}

impl CheckpointKind {
    /// What a checkpoint holds, if it is anything that is known here.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint) -> Option<Self> {
        let starts = |start: &str| checkpoint.names().any(|name| name.starts_with(start));
        let ends = |end: &str| checkpoint.names().any(|name| name.ends_with(end));
        let holds = |part: &str| checkpoint.names().any(|name| name.contains(part));
        if starts("scaled_fp8") || ends(".scale_weight") || ends(".weight_scale") {
            return Some(Self::Scaled8Bit);
        }
        let lora = [
            ".lora_down.",
            ".lora_A.",
            ".lora.down.",
            "_lora.down.",
            ".lora_linear_layer.",
            ".hada_w1_",
            ".lokr_w",
        ];
        if starts("lora_") || lora.iter().any(|part| holds(part)) {
            return Some(Self::Lora);
        }
        if starts("control_model.") || starts("controlnet_") || starts("input_hint_block.") {
            return Some(Self::ControlNet);
        }
        if holds("joint_blocks.") || holds("double_blocks.") || starts("transformer_blocks.") {
            return Some(Self::Transformer);
        }
        if starts("model.diffusion_model.") {
            return Some(Self::of_latent_diffusion(checkpoint));
        }
        if starts("temb.dense.0.") || starts("module.temb.dense.0.") {
            return Some(Self::OriginalDdpm);
        }
        if checkpoint.has_tiny_autoencoder() {
            return Some(Self::TinyAutoencoder);
        }
        if starts("first_stage_model.") || starts("decoder.up.") || starts("decoder.up_blocks.") {
            return Some(Self::Vae);
        }
        if starts("down_blocks.") && starts("time_embedding.") {
            return Some(Self::DiffusersUNet);
        }
        if starts("text_model.") || starts("cond_stage_model.") || starts("conditioner.") {
            return Some(Self::TextEncoder);
        }
        let word = ["emb_params", "string_to_param", "clip_l", "clip_g"];
        word.iter().any(|name| starts(name)).then_some(Self::TextualInversion)
    }

    /// What a checkpoint holds in which there is a U-Net of latent diffusion.
    fn of_latent_diffusion(checkpoint: &Checkpoint) -> Self {
        let starts = |start: &str| checkpoint.names().any(|name| name.starts_with(start));
        if starts("conditioner.embedders.1.") {
            return Self::StableDiffusionXl;
        }
        if starts("conditioner.embedders.") {
            return Self::StableDiffusionXlRefiner;
        }
        if starts("cond_stage_model.embedding.") {
            return Self::ClassConditional;
        }
        match checkpoint.shape("model.diffusion_model.input_blocks.0.0.weight") {
            Some([_, 8, ..]) => return Self::InstructPix2Pix,
            Some([_, 7, ..]) => return Self::Upscaler,
            Some([_, 5, ..]) => return Self::Depth,
            // Those with 9 read a mask and a masked picture, and are Stable Diffusion like those with 4.
            Some([_, inputs, ..]) if ![4, 9].contains(inputs) => return Self::OtherInputs,
            _ => {}
        }
        if starts("cond_stage_model.model.") {
            return Self::StableDiffusion2;
        }
        let clip = ["text_model.", "embeddings.", "encoder."];
        if clip.iter().any(|part| starts(&format!("cond_stage_model.transformer.{part}"))) {
            return Self::StableDiffusion1;
        }
        if starts("cond_stage_model.transformer.") {
            return Self::LatentDiffusionOnText;
        }
        Self::UNet
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StableDiffusion1 => "Stable Diffusion 1",
            Self::StableDiffusion2 => "Stable Diffusion 2",
            Self::StableDiffusionXl => "Stable Diffusion XL",
            Self::StableDiffusionXlRefiner => "the refiner of Stable Diffusion XL",
            Self::InstructPix2Pix => "an InstructPix2Pix model, whose U-Net has 8 input channels",
            Self::Depth => "a depth-to-image model, whose U-Net has 5 input channels",
            Self::Upscaler => "an upscaler, whose U-Net has 7 input channels",
            Self::OtherInputs => "a latent diffusion model whose U-Net has other than 4 or 9 input channels",
            Self::LatentDiffusionOnText => "text-to-image latent diffusion with a BERT encoder",
            Self::ClassConditional => "class-conditional latent diffusion",
            Self::UNet => {
                "the U-Net of a latent diffusion model without its text encoder or table of classes"
            }
            Self::Transformer => "a diffusion transformer, such as Stable Diffusion 3 or Flux",
            Self::OriginalDdpm => "a model of the original DDIM code",
            Self::DiffusersUNet => "the U-Net of a diffusers model",
            Self::Vae => "a VAE",
            Self::TinyAutoencoder => "a tiny autoencoder (TAESD)",
            Self::TextEncoder => "a text encoder",
            Self::Lora => "a LoRA, which changes another model",
            Self::ControlNet => "a ControlNet, which steers another model",
            Self::TextualInversion => "a textual inversion, a word for another model",
            Self::Scaled8Bit => "weights of 8 bits with scales beside them",
        }
    }

    /// What to do about a kind that no pipeline runs.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::DiffusersUNet | Self::TextEncoder => {
                "which is a part of a model: give the whole directory, with its model_index.json"
            }
            Self::TinyAutoencoder => {
                "which is a part of a model: give it as the VAE (--vae) of a model, or for its previews (--preview-vae)"
            }
            Self::Vae => "which is a part of a model: give it as the VAE (--vae) of a model",
            Self::UNet => "which is a part of a model: expected the whole checkpoint in one file",
            Self::Lora => "and is no model itself: give it as a LoRA (--lora) of a model",
            Self::TextualInversion => {
                "and is no model itself: give it as an embedding (--embedding) of a model"
            }
            Self::Scaled8Bit => "which are not supported: plain F8_E4M3 and F8_E5M2 are",
            _ => "which is not supported yet",
        }
    }
}
