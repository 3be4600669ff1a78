//! How the service's parts are, for `/ready`.

use std::sync::{Arc, Mutex, PoisonError};

/// The parts that work beside the calls.
#[derive(Clone, Default)]
#[allow(missing_docs, reason = "each field is the part that it names")]
pub struct Healths {
    pub relay: Arc<Part>,
    pub projector: Arc<Part>,
    pub sweep: Arc<Part>,
}

/// One part: well, or failing with a cause. Starts as not yet proved.
pub struct Part {
    trouble: Mutex<Option<String>>,
}

impl Default for Part {
    fn default() -> Self {
        Self {
            trouble: Mutex::new(Some("not proved yet".to_owned())),
        }
    }
}

impl Part {
    /// It worked just now.
    pub fn well(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// It did not.
    pub fn failing(&self, cause: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
    }

    /// Why it is not well; `None` when it is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
