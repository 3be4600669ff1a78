//! How the service's parts are, for `/ready`.

use std::sync::{Mutex, PoisonError};

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
