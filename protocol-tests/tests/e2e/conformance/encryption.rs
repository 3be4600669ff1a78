//! The five ways in which a leg is encrypted, by the names that tests, tables and documents use.

/// How one leg is encrypted; what each means at a client is in `drivers/README.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Encryption {
    None,
    LoginOnly,
    On,
    Required,
    Strict,
}

impl Encryption {
    /// All of them, weakest first.
    pub(super) const ALL: [Self; 5] = [
        Self::None,
        Self::LoginOnly,
        Self::On,
        Self::Required,
        Self::Strict,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LoginOnly => "login-only",
            Self::On => "on",
            Self::Required => "required",
            Self::Strict => "strict",
        }
    }

    /// Its place in [`Self::ALL`].
    pub(super) fn at(self) -> usize {
        self as usize
    }
}
