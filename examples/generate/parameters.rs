//! What made a picture, in the form that other tools read from a PNG.

use std::path::Path;

use deepcache::deepcache::CacheSchedule;
use deepcache::pipelines::{CacheOptions, Condition, Generation, PromptSyntax, Request, StepKind};

use crate::options::Options;

/// The text of the PNG's entry `parameters` for picture `number` of a run.
pub(crate) fn parameters(
    options: &Options,
    request: &Request,
    generation: &Generation,
    number: usize,
) -> String {
    let mut text = match &request.condition {
        Condition::Prompt { prompt, negative_prompt } if negative_prompt.is_empty() => prompt.clone(),
        Condition::Prompt { prompt, negative_prompt } => {
            format!("{prompt}\nNegative prompt: {negative_prompt}")
        }
        Condition::ClassLabels(labels) => {
            let label = labels.get(number).or(labels.first()).copied().unwrap_or_default();
            format!("class {label}")
        }
        Condition::Nothing => String::new(),
    };
    let noise = match options.latents.as_deref().and_then(Path::file_name) {
        Some(file) => format!("Latents: {}", file.to_string_lossy()),
        None => format!("Seed: {}, RNG: {}", request.seed, request.generator),
    };
    let steps = &generation.statistics.steps;
    let calls = steps.len() / generation.pictures.len().max(1);
    let asked = request.steps.unwrap_or(calls);
    let mut facts = vec![format!("Steps: {asked}")];
    facts.extend(request.scheduler.map(|kind| format!("Sampler: {kind}")));
    facts.extend(request.sigmas.map(|sigmas| format!("Sigmas: {sigmas}")));
    facts.extend(request.timestep_spacing.map(|spacing| format!("Timestep spacing: {spacing}")));
    if request.eta > 0.0 {
        facts.push(format!("Eta: {}", request.eta));
    }
    facts.extend(generation.guidance_scale.map(|scale| format!("CFG scale: {scale}")));
    if request.clip_skip > 0 {
        // Programs that read this count from 1.
        facts.push(format!("Clip skip: {}", request.clip_skip + 1));
    }
    if request.prompt_syntax != PromptSyntax::Plain {
        facts.push(format!("Prompt syntax: {}", request.prompt_syntax));
    }
    if request.guidance_rescale > 0.0 {
        facts.push(format!("Guidance rescale: {}", request.guidance_rescale));
    }
    for (name, given) in [("Image", &options.image), ("Mask", &options.mask)] {
        let file = given.as_deref().and_then(Path::file_name);
        facts.extend(file.map(|file| format!("{name}: {}", file.to_string_lossy())));
    }
    // As other programs call it.
    facts.extend(request.strength.map(|strength| format!("Denoising strength: {strength}")));
    facts.push(noise);
    let picture = &generation.pictures[number];
    facts.push(format!("Size: {}x{}", picture.width, picture.height));
    facts.extend(options.model.model.file_name().map(|name| format!("Model: {}", name.to_string_lossy())));
    if generation.statistics.weights_dtype != generation.statistics.dtype {
        facts.push(format!("Weights: {}", generation.statistics.weights_dtype));
    }
    if let Some((name, start)) = options.refining.described() {
        facts.push(format!("Refiner: {name}, Refiner switch at: {start}"));
    }
    let vae = options.model.vae.as_deref().and_then(Path::file_name);
    facts.extend(vae.map(|name| format!("VAE: {}", name.to_string_lossy())));
    for (name, given) in [("LoRA", &options.model.lora), ("Embedding", &options.model.embedding)] {
        let files = given.iter().filter_map(|text| Path::new(text).file_name());
        facts.extend(files.map(|file| format!("{name}: {}", file.to_string_lossy())));
    }
    if let Some(cache) = &request.cache {
        facts.extend(cache_facts(cache));
        let full = steps[number * calls..(number + 1) * calls].iter();
        let full = full.filter(|step| step.kind == StepKind::Full).count();
        facts.push(format!("DeepCache full calls: {full} of {calls}"));
    }
    if generation.pictures.len() > 1 {
        facts.push(format!("Batch position: {number} of {}", generation.pictures.len()));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text + &facts.join(", ")
}

fn cache_facts(cache: &CacheOptions) -> Vec<String> {
    let schedule = match &cache.schedule {
        CacheSchedule::Uniform { interval } => format!("DeepCache interval: {interval}"),
        CacheSchedule::Centered { interval, center, power } => {
            let or_usual = |number: Option<String>| number.unwrap_or_else(|| "usual".to_owned());
            format!(
                "DeepCache interval: {interval}, DeepCache schedule: centered (center {}, power {})",
                or_usual(center.map(|center| center.to_string())),
                or_usual(power.map(|power| power.to_string()))
            )
        }
        CacheSchedule::Quadratic { interval, .. } => {
            format!("DeepCache interval: {interval}, DeepCache schedule: quadratic")
        }
        CacheSchedule::Threshold { threshold } => format!("DeepCache threshold: {threshold}"),
        _ => "DeepCache schedule: list".to_owned(),
    };
    let mut facts = vec![schedule, format!("DeepCache branch: {}", cache.branch)];
    if cache.reuse.features() > 1 {
        facts.push(format!("DeepCache forecast: {}", cache.reuse));
    }
    if cache.warm_up > 0 {
        facts.push(format!("DeepCache warm-up: {}", cache.warm_up));
    }
    facts
}
