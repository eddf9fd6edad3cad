//! Schedules of full calls against the code that the paper released.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use deepcache::Error;
use deepcache::deepcache::CacheSchedule;
use serde_json::Value;
use support::json;

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn full_calls(schedule: &CacheSchedule, calls: usize) -> Result<Vec<usize>, Error> {
    let full = schedule.full_calls(calls)?.unwrap();
    Ok((0..calls).filter(|&call| full[call]).collect())
}

#[test]
fn uniform_schedules_are_those_of_the_paper() {
    let file = json("deepcache-schedule/uniform.json");
    for row in file["rows"].as_array().unwrap() {
        let schedule = CacheSchedule::Uniform { interval: number(&row["interval"]) };
        assert_eq!(full_calls(&schedule, number(&row["calls"])).unwrap(), numbers(&row["full"]), "{row}");
    }
}

#[test]
fn centered_schedules_are_those_of_the_released_code() {
    let file = json("deepcache-schedule/nonuniform.json");
    let rows: Vec<&Value> =
        file["rows"].as_array().unwrap().iter().filter(|row| row["code"] == "sd").collect();
    assert_eq!(rows.len(), 460);
    let (mut same, mut refused, mut close) = (0, 0, 0);
    for row in rows {
        let schedule = CacheSchedule::Centered {
            interval: number(&row["interval"]),
            center: Some(number(&row["center"])),
            power: row["pow"].as_f64(),
        };
        let found = full_calls(&schedule, number(&row["steps"]));
        // Where the last bit of a power decides, the answer is that of the C library that the reference ran with.
        let sensitive =
            row["rounding_sensitive"] == true && !cfg!(all(target_os = "linux", target_env = "gnu"));
        match (found, row["full_steps"].is_null()) {
            (Ok(found), false) if found == numbers(&row["full_steps"]) => same += 1,
            (Err(Error::Option { .. }), true) => refused += 1,
            (found, _) => {
                assert!(sensitive, "{row}: {found:?}");
                close += 1;
            }
        }
    }
    println!("{same} the same, {refused} refused by both, {close} differ where rounding decides");
    assert!(same > 400 && refused == 8, "{same}, {refused}");
}

#[test]
fn quadratic_schedules_are_those_of_the_released_latent_diffusion_code() {
    let file = json("deepcache-schedule/nonuniform.json");
    let rows: Vec<&Value> =
        file["rows"].as_array().unwrap().iter().filter(|row| row["code"] == "ldm").collect();
    assert_eq!(rows.len(), 150);
    for row in rows {
        let interval = number(&row["interval"]);
        let schedule = CacheSchedule::Quadratic { interval, power: row["pow"].as_f64() };
        assert_eq!(
            full_calls(&schedule, number(&row["steps"])).unwrap(),
            numbers(&row["full_steps"]),
            "{row}"
        );
    }
}
