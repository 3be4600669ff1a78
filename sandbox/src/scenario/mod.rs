//! The scripted backend: a request is matched, its steps are played.

use serde::{Deserialize, Serialize};

/// A script.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Scenario {}
