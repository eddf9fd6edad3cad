#![allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    clippy::restriction,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr
)]
use deepcache::deepcache::*;
use deepcache::pipelines::*;
use serde_json::{Value, json};
use std::ops::ControlFlow;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let job: Value = serde_json::from_str(&std::fs::read_to_string(&args[1]).unwrap()).unwrap();
    let mut p = DiffusionPipeline::load(
        std::path::Path::new(job["model"].as_str().unwrap_or("assets/tiny")),
        &LoadOptions::default(),
    )
    .unwrap();
    let mut out = Vec::new();
    let base = |pr: &Value| Request {
        steps: job["steps"].as_u64().map(|s| s as usize),
        seed: pr[1].as_u64().unwrap(),
        scheduler: job["scheduler"].as_str().map(|s| s.parse().unwrap()),
        guidance_scale: job["guidance"].as_f64(),
        eta: job["eta"].as_f64().unwrap_or(0.0),
        ..Request::prompt(pr[0].as_str().unwrap())
    };
    for pr in job["prompts"].as_array().unwrap() {
        if job["mode"] == "analyze" {
            let branches: Vec<usize> =
                job["branches"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap() as usize).collect();
            let a = p
                .analyze(&base(pr), &AnalysisOptions { branches: branches.clone(), probed: branches }, |_| {
                    ControlFlow::Continue(())
                })
                .unwrap();
            out.push(json!({"gains": a.gains, "timesteps": a.timesteps, "full": a.macs_full, "branches": a.branches.iter().map(|b| json!({"branch": b.branch, "drift": b.relative_l2, "errors": b.errors, "macs": b.macs_shallow})).collect::<Vec<_>>()}));
        } else {
            let reference = p.generate(&base(pr), |_| ControlFlow::Continue(())).unwrap();
            let r = &reference.pictures[0].pixels;
            let rl = &reference.latents;
            let mut row = Vec::new();
            for run in job["runs"].as_array().unwrap() {
                let mut q = base(pr);
                if let Some(s) = run["steps"].as_u64() {
                    q.steps = Some(s as usize);
                }
                if !run["schedule"].is_null() {
                    q.cache = Some(CacheOptions {
                        schedule: CacheSchedule::parse(run["schedule"].as_str().unwrap(), None).unwrap(),
                        branch: run["branch"].as_u64().unwrap() as usize,
                        reuse: run["reuse"].as_str().unwrap_or("hold").parse().unwrap(),
                        warm_up: 0,
                    });
                }
                let g = p.generate(&q, |_| ControlFlow::Continue(())).unwrap();
                let x = &g.pictures[0].pixels;
                let mse: f64 = x.iter().zip(r).map(|(a, b)| (*a as f64 - *b as f64).powi(2)).sum::<f64>()
                    / x.len() as f64;
                let lm: f64 = g
                    .latents
                    .values()
                    .iter()
                    .zip(rl.values())
                    .map(|(a, b)| (*a as f64 - *b as f64).powi(2))
                    .sum::<f64>()
                    / rl.values().len() as f64;
                row.push(json!([
                    10.0 * (255.0f64.powi(2) / mse.max(1e-9)).log10(),
                    lm.sqrt(),
                    g.statistics.steps.len()
                ]));
            }
            out.push(json!(row));
        }
        eprint!(".");
    }
    eprintln!();
    std::fs::write(&args[2], serde_json::to_string(&out).unwrap()).unwrap();
}
