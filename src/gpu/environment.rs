//! Which family of kernels a device gets, and how the environment overrules that.

use super::choices::Family;
use super::context::Gpu;
use crate::error::{Error, Result};

/// The environment variable that overrules the choice of kernels: `tiled`, `broadcast` or `cooperative`.
const FAMILY_VARIABLE: &str = "DEEPCACHE_FAMILY";

/// The environment variable that overrules the size of cooperative matrices, `8` or `16`, for tests: some drivers
/// can do more than they list.
const FRAGMENT_VARIABLE: &str = "DEEPCACHE_FRAGMENT";

/// A family without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Tiled,
    Broadcast,
    Cooperative,
}

/// What the environment asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Environment {
    name: Option<Name>,
    /// Rows and columns of a cooperative matrix.
    pub(super) edge: Option<u32>,
}

impl Environment {
    pub(super) fn read() -> Result<Self> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Self::parse(&variable(FAMILY_VARIABLE), &variable(FRAGMENT_VARIABLE))
    }

    fn parse(family: &str, fragment: &str) -> Result<Self> {
        let name = match family {
            "" => None,
            "tiled" => Some(Name::Tiled),
            "broadcast" => Some(Name::Broadcast),
            "cooperative" => Some(Name::Cooperative),
            other => {
                let problem = format!("\"{other}\" is not tiled, broadcast or cooperative");
                return Err(Error::option(FAMILY_VARIABLE, problem));
            }
        };
        let edge = match fragment {
            "" => None,
            "8" => Some(8),
            "16" => Some(16),
            other => return Err(Error::option(FRAGMENT_VARIABLE, format!("\"{other}\" is not 8 or 16"))),
        };
        Ok(Self { name, edge })
    }

    /// Whether cooperative matrices are to be tried, or why not.
    pub(super) fn wants_cooperative(self, software: bool) -> std::result::Result<(), String> {
        match self.name {
            Some(Name::Cooperative) => Ok(()),
            Some(Name::Tiled | Name::Broadcast) => Err(format!("{FAMILY_VARIABLE} asks for another family")),
            None if software => Err("it is software, which they do not make faster".to_owned()),
            None => Ok(()),
        }
    }

    /// The family of a device: the one asked for, or the one that suits it.
    pub(super) fn family(self, gpu: &Gpu) -> Result<Family> {
        let families = gpu.families();
        let of = |name| families.iter().copied().find(|family| named(*family) == name);
        let Some(wanted) = self.name else {
            let preferred = if gpu.is_software() { Name::Broadcast } else { Name::Cooperative };
            return Ok(of(preferred).unwrap_or_default());
        };
        of(wanted).ok_or_else(|| {
            let missing = match wanted {
                Name::Cooperative => gpu.cooperative().err().unwrap_or_default(),
                Name::Tiled | Name::Broadcast => "it needs subgroups of 8 lanes",
            };
            let problem = format!("{} cannot run this family: {missing}", gpu.description().name);
            Error::option(FAMILY_VARIABLE, problem)
        })
    }
}

fn named(family: Family) -> Name {
    match family {
        Family::Tiled => Name::Tiled,
        Family::Broadcast => Name::Broadcast,
        Family::Cooperative(_) => Name::Cooperative,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_family_and_a_size_or_neither() {
        let parsed =
            |family, fragment| Environment::parse(family, fragment).map(|asked| (asked.name, asked.edge));
        assert_eq!(parsed("", "").ok(), Some((None, None)));
        assert_eq!(parsed("cooperative", "16").ok(), Some((Some(Name::Cooperative), Some(16))));
        assert!(parsed("tiles", "").is_err());
        assert!(parsed("", "32").is_err());
    }

    #[test]
    fn cooperative_matrices_are_tried_on_hardware_or_when_asked_for() {
        let tried = |name, software| Environment { name, edge: None }.wants_cooperative(software).is_ok();
        assert!(tried(None, false));
        assert!(!tried(None, true));
        assert!(tried(Some(Name::Cooperative), true));
        assert!(!tried(Some(Name::Tiled), false));
    }
}
