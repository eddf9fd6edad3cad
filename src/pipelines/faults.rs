//! Values that stop being numbers: noticed while a picture is made, and traced to the layer that makes them.

use super::residency::ModelWeights;
use super::streaming::NetworkCall;
use crate::error::{Error, Result};
use crate::gpu::recording::{Access, Recording};
use crate::gpu::{Executor, Memory, PendingRead, Program, Purpose};
use crate::kernels::finite::{Row, finite};
use crate::tensor::{ElementType, Tensor};

/// The outputs of a run are looked at after so many calls, the first of them soon.
const EVERY: usize = 8;

/// What was asked for is there without waiting after so many calls more.
const LATER: usize = 2;

/// What is said where nobody knows which layer it was.
pub(super) const ADVICE: &str = "where values are stored in 16 bits, a layer may have gone beyond 65504, the largest \
    of them: store them in 32 (--dtype f32), or use a smaller guidance scale";

/// What helps where an autoencoder makes them.
const ADVICE_VAE: &str = "where values are stored in 16 bits, a layer may have gone beyond 65504, the largest of them: have \
    the VAE in 32 (--vae-dtype f32)";

/// Looks now and then whether the outputs of the calls so far are finite, without waiting for the device.
#[derive(Debug, Default)]
pub(super) struct Watch {
    asked: Option<(usize, PendingRead)>,
}

impl Watch {
    /// After a call has been submitted: the first call that is known to have a fault. `ask` asks for the table of faults.
    pub(super) fn look(
        &mut self,
        call: usize,
        ask: impl FnOnce() -> Result<PendingRead>,
    ) -> Result<Option<usize>> {
        let mut found = None;
        if let Some((_, read)) = self.asked.take_if(|(asked, _)| *asked + LATER <= call) {
            found = first(&read.wait()?);
        }
        if self.asked.is_none() && call.is_multiple_of(EVERY) {
            self.asked = Some((call, ask()?));
        }
        Ok(found)
    }
}

/// The first row of a table of faults, as it was read back, that holds one.
pub(super) fn first(table: &[u8]) -> Option<usize> {
    bytemuck::pod_collect_to_vec::<u8, f32>(table).iter().position(|fault| *fault != 0.0)
}

/// Looks whether what an autoencoder makes is finite.
#[derive(Debug)]
pub(super) struct Check {
    /// `[1]`: 1 if a value is not.
    table: Tensor,
    /// `[1]`, which is 0.
    step: Tensor,
}

impl Check {
    pub(super) fn new() -> Self {
        let table = Tensor::external("faults", [1], ElementType::F32);
        Self { table, step: Tensor::external("step", [1], ElementType::U32) }
    }

    /// Everything that is to be allocated.
    pub(super) fn tensors(&self) -> [&Tensor; 2] {
        [&self.table, &self.step]
    }

    /// Records it for a tensor.
    pub(super) fn record(&self, recording: &mut Recording, values: &Tensor) -> Result<()> {
        finite(recording, values, &self.step, &self.table, Row::Fixed(0))
    }

    /// Plays a program in whose recording it is: an error with the layer that a second play finds. `made` is what the
    /// program makes.
    pub(super) fn play(
        &self,
        made: &str,
        (program, recording): (&Program, &Recording),
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<()> {
        memory.write(&self.table, 0, &[0; 4])?;
        executor.play(program)?;
        if first(&memory.read(&self.table)?).is_none() {
            return Ok(());
        }
        // Should there be no memory for a second look, what was made is what is known.
        let layer = trace(recording, &self.step, None, memory, executor).ok().flatten();
        let what = layer.map_or(made.to_owned(), |layer| format!("the output of {layer}"));
        Err(Error::NotFinite { what, advice: ADVICE_VAE })
    }
}

/// A recording whose every command is followed by a check of what it wrote.
struct Traced {
    recording: Recording,
    /// Where every command of the original is.
    starts: Vec<usize>,
    /// `[commands]`.
    table: Tensor,
}

impl Traced {
    fn new(original: &Recording, step: &Tensor) -> Result<Self> {
        let commands = original.commands().len();
        let table = Tensor::external("faults_by_command", [commands.max(1)], ElementType::F32);
        let (recording, starts) = original.followed(|recording, number, command| {
            let written = command.bindings.iter().filter(|binding| binding.access != Access::Read);
            for binding in written.filter(|binding| binding.tensor.element() != ElementType::U32) {
                finite(recording, &binding.tensor, step, &table, Row::Fixed(number))?;
            }
            Ok(())
        })?;
        Ok(Self { recording, starts, table })
    }
}

/// Plays a recording with every output checked: the label of the first command that writes a value that is not finite.
pub(super) fn trace(
    original: &Recording,
    step: &Tensor,
    network: Option<(NetworkCall, &mut ModelWeights)>,
    memory: &mut Memory,
    executor: &mut Executor,
) -> Result<Option<String>> {
    let traced = Traced::new(original, step)?;
    memory.allocate([&traced.table], Purpose::Persistent)?;
    let play = || {
        let programs = executor.prepare(memory, &[&traced.recording])?;
        let Some(program) = programs.first() else { return Ok(None) };
        match network {
            Some((call, weights)) => weights.play(call, program, Some(&traced.starts), memory, executor)?,
            None => executor.play(program)?,
        };
        memory.read(&traced.table).map(Some)
    };
    let table = play();
    memory.release(&traced.table);
    let command = table?.as_deref().and_then(first).and_then(|number| original.commands().get(number));
    Ok(command.map(|command| command.label.clone()))
}
