//! Scripts built in Rust.

use std::sync::Arc;

use weir_tds::build::TokenBuf;

use super::{ColumnSpec, DoneToken, LoginScript, Made, RequestKind, Rule, Scenario, Step, When};

impl Step {
    /// COLMETADATA from names and T-SQL types.
    #[must_use]
    pub fn columns(columns: &[(&str, &str)]) -> Self {
        let one = |(name, kind): &(&str, &str)| ColumnSpec {
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
            ..ColumnSpec::default()
        };
        Self::Columns(columns.iter().map(one).collect())
    }

    /// One row, `times` over.
    #[must_use]
    pub fn rows(times: u64, values: impl IntoIterator<Item = serde_json::Value>) -> Self {
        Self::Rows {
            values: values.into_iter().collect(),
            times,
        }
    }

    /// A DONE.
    #[must_use]
    pub fn done(status: u16, command: u16, rows: u64) -> Self {
        Self::Done {
            kind: DoneToken::Done,
            status,
            command,
            rows,
        }
    }

    /// An ERROR of class 16.
    #[must_use]
    pub fn error(number: i32, text: &str) -> Self {
        Self::Error {
            number,
            class: 16,
            state: 1,
            text: text.to_owned(),
        }
    }

    /// Tokens made with [`weir_tds::build`].
    #[must_use]
    pub fn tokens(make: impl Fn(&mut TokenBuf) + Send + Sync + 'static) -> Self {
        Self::Made(Made(Arc::new(make)))
    }
}

impl Rule {
    /// Requests whose text is exactly this.
    #[must_use]
    pub fn text_is(text: &str) -> Self {
        Self {
            when: When {
                text_is: Some(text.to_owned()),
                ..When::default()
            },
            ..Self::default()
        }
    }

    /// Requests whose text contains this.
    #[must_use]
    pub fn text_contains(text: &str) -> Self {
        Self {
            when: When {
                text_contains: Some(text.to_owned()),
                ..When::default()
            },
            ..Self::default()
        }
    }

    /// RPCs of this procedure.
    #[must_use]
    pub fn procedure(name: &str) -> Self {
        Self {
            when: When {
                procedure: Some(name.to_owned()),
                ..When::default()
            },
            ..Self::default()
        }
    }

    /// The nth request of each connection, from 1.
    #[must_use]
    pub fn nth(nth: u64) -> Self {
        Self {
            when: When {
                nth: Some(nth),
                ..When::default()
            },
            ..Self::default()
        }
    }

    /// Requests of a kind.
    #[must_use]
    pub fn kind(kind: RequestKind) -> Self {
        Self {
            when: When {
                kind: Some(kind),
                ..When::default()
            },
            ..Self::default()
        }
    }

    /// How often per connection.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// What is played.
    #[must_use]
    pub fn steps(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps.extend(steps);
        self
    }
}

impl Scenario {
    /// An empty script: every request is answered with one DONE.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a rule behind those there are.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Steps for requests that no rule fits.
    #[must_use]
    pub fn otherwise(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.otherwise.extend(steps);
        self
    }

    /// What happens at LOGIN7.
    #[must_use]
    pub fn login(mut self, login: LoginScript) -> Self {
        self.login = login;
        self
    }
}
