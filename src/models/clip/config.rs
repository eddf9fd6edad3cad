//! What a `text_encoder/config.json` may say.

use std::path::Path;

use serde_json::json;

use crate::error::Result;
use crate::kernels::activation::Activation;
use crate::models::config_reader::ConfigReader;

/// Keys that transformers writes into every configuration and that change nothing in a text encoder.
const HARMLESS: &[&str] = &[
    // training, and how the file came to be
    "architectures",
    "attention_dropout",
    "dropout",
    "dtype",
    "initializer_factor",
    "initializer_range",
    "torch_dtype",
    "transformers_version",
    "gradient_checkpointing",
    // what the class returns in Python
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "return_dict",
    "use_return_dict",
    "return_dict_in_generate",
    "torchscript",
    "use_bfloat16",
    "tf_legacy_loss",
    // other kinds of models
    "add_cross_attention",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "finetuning_task",
    "id2label",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "prefix",
    "problem_type",
    "sep_token_id",
    "task_specific_params",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    // generation of text
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "remove_invalid_values",
    "repetition_penalty",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

/// The shape of a `transformers.CLIPTextModel` or `CLIPTextModelWithProjection`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    /// Tokens that have an embedding.
    pub vocab_size: usize,
    /// Channels of a token.
    pub hidden_size: usize,
    /// Channels between the two linear layers of a feed-forward.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Channels of the prompt as one vector, in a `CLIPTextModelWithProjection`.
    pub projection_dim: usize,
    /// Tokens of a prompt, padding included.
    pub max_position_embeddings: usize,
    /// The function of the feed-forwards.
    pub hidden_act: Activation,
    /// The epsilon of every layer norm.
    pub layer_norm_eps: f32,
    /// The id that starts a prompt.
    pub bos_token_id: Option<u32>,
    /// The id that ends a prompt; files of before transformers 4.31 say 2, whatever it is.
    pub eos_token_id: Option<u32>,
    /// The id that fills a prompt up; the tokenizer's own goes before it.
    pub pad_token_id: Option<u32>,
}

impl ClipConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, [`Error::Config`](crate::Error::Config) if a
    /// key is malformed, unknown, or asks for what is not supported.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let mut reader = ConfigReader::open(path.as_ref())?;
        reader.only("model_type", &[json!("clip_text_model")])?;
        reader.only("pruned_heads", &[json!({})])?;
        let activations = [Activation::QuickGelu, Activation::Gelu];
        let activation = reader.word("hidden_act", "quick_gelu", &["quick_gelu", "gelu"])?;
        let config = Self {
            vocab_size: reader.size_up_to("vocab_size", 49_408, 1 << 20)?,
            hidden_size: reader.size("hidden_size", 512)?,
            intermediate_size: reader.size("intermediate_size", 2048)?,
            num_hidden_layers: reader.size_up_to("num_hidden_layers", 12, 1024)?,
            num_attention_heads: reader.size("num_attention_heads", 8)?,
            projection_dim: reader.size("projection_dim", 512)?,
            max_position_embeddings: reader.size_up_to("max_position_embeddings", 77, 4096)?,
            hidden_act: activations[activation],
            layer_norm_eps: reader.epsilon("layer_norm_eps", 1e-5)?,
            bos_token_id: reader.token("bos_token_id", 49_406)?,
            eos_token_id: reader.token("eos_token_id", 49_407)?,
            pad_token_id: reader.token("pad_token_id", 1)?,
        };
        reader.expect_heads("num_attention_heads", config.num_attention_heads, config.hidden_size)?;
        reader.finish(HARMLESS)?;
        Ok(config)
    }

    /// Where a prompt ends: the token whose vector stands for the whole prompt.
    ///
    /// As transformers: the first of the largest ids where the file has the `eos_token_id` of before 4.31, otherwise the
    /// first of that id.
    #[must_use]
    pub fn end_of(&self, ids: &[u32]) -> usize {
        let end = match self.eos_token_id {
            None | Some(2) => ids.iter().max().copied(),
            end => end,
        };
        ids.iter().position(|id| Some(*id) == end).unwrap_or(0)
    }

    /// Values of one attention head.
    #[must_use]
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}
