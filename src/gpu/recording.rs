//! A list of commands over tensor proxies. Touches no device and reads nothing back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::choices::{Choice, Choices, Family};
use super::shader::Shader;
use crate::error::Result;
use crate::tensor::{ElementType, External, Shape, Storage, Tensor};

/// How a command uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only read.
    Read,
    /// Only written, wholly.
    Write,
    /// Updated in place.
    ReadWrite,
}

/// One bound tensor.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The tensor.
    pub tensor: Tensor,
    /// What the command does with it.
    pub access: Access,
}

/// What a command costs, for the watchdog, the profiler and the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Multiply-accumulates.
    pub multiply_accumulates: u64,
    /// Bytes read and written, each counted once.
    pub bytes: u64,
}

/// One dispatch.
#[derive(Clone, Debug)]
pub struct Command {
    /// The profiler's row: `unet/down_blocks.0/resnets.1/conv1/conv2d`.
    pub label: String,
    /// The shader file.
    pub shader: &'static Shader,
    /// Storage of activations and matrices.
    pub element: ElementType,
    /// Values of [`Shader::definitions`].
    pub definitions: Vec<u32>,
    /// Values of `override` constants.
    pub constants: Vec<(&'static str, f64)>,
    /// The uniform `params`.
    pub params: Vec<u8>,
    /// Bindings from 1 on.
    pub bindings: Vec<Binding>,
    /// Workgroups.
    pub grid: [u32; 3],
    /// What it costs.
    pub cost: Cost,
}

/// A tensor that lives only within the recording, or in the memory it was placed in.
#[derive(Clone, Debug)]
pub struct Transient {
    /// Its size.
    pub bytes: u64,
    /// The outliving memory that it was given as its place.
    pub place: Option<External>,
}

/// Commands in order, and the transient tensors between them.
#[derive(Debug)]
pub struct Recording {
    id: u64,
    commands: Vec<Command>,
    transients: Vec<Transient>,
    scope: Vec<String>,
    marks: Vec<(String, Tensor)>,
    choices: Arc<Choices>,
    chosen: Vec<Choice>,
}

impl Recording {
    /// An empty recording whose labels start with `name`.
    pub fn new(name: impl Into<String>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            commands: Vec::new(),
            transients: Vec::new(),
            scope: vec![name.into()],
            marks: Vec::new(),
            choices: Arc::default(),
            chosen: Vec::new(),
        }
    }

    /// The same recording, whose kernels are chosen from `family` where they have a variant for it.
    #[must_use]
    pub fn with_family(self, family: Family) -> Self {
        self.with_choices(Arc::new(Choices::from(family)))
    }

    /// The same recording, whose kernels are chosen by `choices`.
    #[must_use]
    pub fn with_choices(mut self, choices: Arc<Choices>) -> Self {
        self.choices = choices;
        self
    }

    /// The family that kernels are chosen from.
    #[must_use]
    pub fn family(&self) -> Family {
        self.choices.family
    }

    /// What kernels are chosen by.
    #[must_use]
    pub fn choices(&self) -> &Arc<Choices> {
        &self.choices
    }

    /// How each of its matrix products is cut into workgroups, in the order in which they came first.
    #[must_use]
    pub fn chosen(&self) -> &[Choice] {
        &self.chosen
    }

    /// Notes what was chosen for a product.
    pub(crate) fn note(&mut self, choice: Choice) {
        if !self.chosen.contains(&choice) {
            self.chosen.push(choice);
        }
    }

    /// The family that products of such values are chosen from.
    #[must_use]
    pub fn product_family(&self, element: ElementType) -> Family {
        self.choices.product_family(element)
    }

    /// Its commands in order.
    #[must_use]
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Its transient tensors, by index.
    #[must_use]
    pub fn transients(&self) -> &[Transient] {
        &self.transients
    }

    /// The name that it was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.scope[0]
    }

    /// The sum of its commands' costs.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.commands.iter().fold(Cost::default(), |sum, command| Cost {
            multiply_accumulates: sum.multiply_accumulates + command.cost.multiply_accumulates,
            bytes: sum.bytes + command.cost.bytes,
        })
    }

    /// Labels get `name` as their next part until the returned guard is dropped.
    pub fn scope(&mut self, name: &str) -> Scope<'_> {
        self.scope.push(name.to_owned());
        Scope { recording: self }
    }

    /// Remembers `tensor` under the current scope, so that tests and tools can look at a stage by its module's
    /// name (`down_blocks.0.resnets.1`). Costs nothing unless the tensor is then placed somewhere.
    pub fn mark(&mut self, tensor: &Tensor) {
        let name = self.scope[1..].join(".");
        self.marks.push((name, tensor.clone()));
    }

    /// What was marked, in order.
    #[must_use]
    pub fn marks(&self) -> &[(String, Tensor)] {
        &self.marks
    }

    /// A new transient tensor, to be written by the next command.
    pub fn transient(&mut self, shape: impl Into<Shape>, element: ElementType) -> Tensor {
        let shape = shape.into();
        let index = self.transients.len();
        let bytes = shape.count() as u64 * element.bytes();
        self.transients.push(Transient { bytes, place: None });
        Tensor::new(shape, element, Storage::Transient { recording: self.id, index })
    }

    /// Makes `tensor` live in `destination`, which outlives the recording: no copy is made.
    ///
    /// # Panics
    /// If `tensor` is no transient of this recording, has another size, or has a place already.
    pub fn place(&mut self, tensor: &Tensor, destination: &Tensor) {
        let external = destination.as_external().expect("the destination outlives recordings");
        let index = self.transient_index(tensor).expect("only a transient can be placed");
        assert_eq!(tensor.bytes(), external.bytes(), "a tensor is placed in memory of its own size");
        let place = &mut self.transients[index].place;
        assert!(place.is_none(), "a tensor is placed once");
        *place = Some(external.clone());
    }

    /// The index of a transient tensor of this recording; `None` for external tensors.
    ///
    /// # Panics
    /// If the tensor belongs to another recording.
    #[must_use]
    pub fn transient_index(&self, tensor: &Tensor) -> Option<usize> {
        match tensor.storage() {
            Storage::Transient { recording, index } => {
                assert_eq!(*recording, self.id, "a transient tensor is used in its own recording");
                Some(*index)
            }
            Storage::External(_) => None,
        }
    }

    /// The same commands over the same tensors, and behind each what `follow` records when it is told the command and its
    /// number; also where every command is now, and their end.
    ///
    /// # Errors
    /// Those of `follow`.
    pub fn followed(
        &self,
        mut follow: impl FnMut(&mut Self, usize, &Command) -> Result<()>,
    ) -> Result<(Self, Vec<usize>)> {
        let mut recording = Self {
            id: self.id,
            commands: Vec::new(),
            transients: self.transients.clone(),
            scope: self.scope.clone(),
            marks: Vec::new(),
            choices: Arc::clone(&self.choices),
            chosen: Vec::new(),
        };
        let mut starts = Vec::with_capacity(self.commands.len() + 1);
        for (number, command) in self.commands.iter().enumerate() {
            starts.push(recording.commands.len());
            recording.commands.push(command.clone());
            follow(&mut recording, number, command)?;
        }
        starts.push(recording.commands.len());
        Ok((recording, starts))
    }

    /// Appends a command. Its label is the current scope and the shader's name.
    ///
    /// # Panics
    /// If the number of bindings is not the shader's.
    pub fn dispatch(&mut self, dispatch: Dispatch<'_>) {
        assert_eq!(
            dispatch.bindings.len(),
            dispatch.shader.bindings.len(),
            "{}: bindings",
            dispatch.shader.name
        );
        let bindings: Vec<_> = dispatch
            .bindings
            .iter()
            .map(|&(tensor, access)| {
                let _ = self.transient_index(tensor);
                Binding { tensor: tensor.clone(), access }
            })
            .collect();
        let bytes = bindings.iter().map(|binding| binding.tensor.bytes()).sum();
        self.commands.push(Command {
            label: format!("{}/{}", self.scope.join("/"), dispatch.shader.name),
            shader: dispatch.shader,
            element: dispatch.element,
            definitions: dispatch.definitions.to_vec(),
            constants: dispatch.constants.to_vec(),
            params: dispatch.params.to_vec(),
            bindings,
            grid: dispatch.grid,
            cost: Cost { multiply_accumulates: dispatch.multiply_accumulates, bytes },
        });
    }
}

/// The largest tensor that the commands of some recordings bind: its name and its size in bytes.
///
/// The name is `decode/vae/decoder/conv_out/conv2d_tiled (input [1, 512, 512, 128])`: the command's label, the
/// binding and its extents.
#[must_use]
pub fn largest_binding(recordings: &[&Recording]) -> Option<(String, u64)> {
    let commands = recordings.iter().flat_map(|recording| recording.commands());
    let bindings = commands.flat_map(|command| {
        let names = command.shader.bindings;
        command.bindings.iter().zip(names).map(move |(binding, name)| (command, &binding.tensor, *name))
    });
    let largest = bindings.rev().max_by_key(|(_, tensor, _)| tensor.bytes());
    largest.map(|(command, tensor, name)| {
        (format!("{} ({name} {})", command.label, tensor.shape()), tensor.bytes())
    })
}

/// What a kernel's record function says of one dispatch.
#[derive(Debug)]
pub struct Dispatch<'a> {
    /// The shader file.
    pub shader: &'static Shader,
    /// Storage of activations and matrices.
    pub element: ElementType,
    /// Values of [`Shader::definitions`].
    pub definitions: &'a [u32],
    /// Values of `override` constants; those not named keep their defaults.
    pub constants: &'a [(&'static str, f64)],
    /// The uniform `params`, as bytes.
    pub params: &'a [u8],
    /// Bindings from 1 on, in the order of [`Shader::bindings`].
    pub bindings: &'a [(&'a Tensor, Access)],
    /// Workgroups.
    pub grid: [u32; 3],
    /// Multiply-accumulates.
    pub multiply_accumulates: u64,
}

/// A part of a label; see [`Recording::scope`].
#[derive(Debug)]
pub struct Scope<'a> {
    recording: &'a mut Recording,
}

impl std::ops::Deref for Scope<'_> {
    type Target = Recording;
    fn deref(&self) -> &Recording {
        self.recording
    }
}

impl std::ops::DerefMut for Scope<'_> {
    fn deref_mut(&mut self) -> &mut Recording {
        self.recording
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.recording.scope.pop();
    }
}
