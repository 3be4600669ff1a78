//! What the gate says when it refuses: one number per case, none that the drivers' own retry lists hold.

use weir_contracts::ids::AccountId;

/// Class of every refusal: "the user can correct it" [MS-TDS 2.2.7.10]. 17 is transient to r2dbc-mssql, and is retried.
pub const CLASS: u8 = 16;
/// Class when the connection cannot go on.
pub const CLASS_FATAL: u8 = 20;

/// SQL Server's "login failed", class 14.
pub const LOGIN_FAILED: u32 = 18456;
/// Its class: security.
pub const CLASS_SECURITY: u8 = 14;

/// What a client is told that was promised MARS before the server was asked.
const NO_MARS: &str = "Weir: the SQL Server behind this gateway does not speak MARS, which this login asked for. Log in again: MARS is \
                       not offered then. A program that needs it cannot use this server.";

/// What a client is told whose integrated login the server did not take.
const INTEGRATED_UNVERIFIED: &str = "Weir: the server behind this gateway could not verify an integrated login. Extended protection (channel \
                                     binding) on the server binds such a login to the client's own connection and works through no gateway; \
                                     Kerberos needs the SPN MSSQLSvc/GATEWAY:PORT at the server's account. Use a SQL login, or ask the operator.";

/// Why the gate refuses. Number and state of each are listed in docs/errors.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// 50402: what can be spent is less than the price.
    CreditSpent {
        /// Decimal strings and currency, as billing last told.
        available: String,
        /// Price of the next row or request.
        price: String,
        /// ISO 4217.
        currency: String,
    },
    /// 50403 state 1: the wallet is frozen.
    Frozen,
    /// 50403 state 2: no account for this login.
    UnknownTenant,
    /// 50403 state 3: something that a tenant may not ask for.
    NotAllowed(&'static str),
    /// 50429: a limit was reached.
    Limit(&'static str),
    /// 50503: the balance cannot be checked now.
    BalanceUnknown(String),
    /// 50400: the request or its answer cannot be metered.
    Unmeterable(String),
    /// 50504: the upstream cannot be reached, or went away.
    Upstream(String),
    /// 50504 state 2: the upstream is there, but it and the gate come to no encryption that both can do.
    UpstreamEncryption(String),
    /// 50504 state 3: the client was promised MARS, and the upstream does not speak it (RFD 15).
    NoMars,
    /// 50400 state 3: `EXEC weir.…` with a name that the gate does not know.
    UnknownCommand(String),
    /// 50400 state 2: the server answered with something that leads around the gate.
    Routed(&'static str),
    /// 18456: the password at the gate is wrong. SQL Server's own number, so that drivers ask for another one and do not try again.
    LoginFailed,
    /// 50403 state 4: the server could not verify an integrated login. Stands behind the server's own error.
    IntegratedUnverified,
}

/// A refusal, ready to be built into an ERROR token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Error number.
    pub number: u32,
    /// State: which case of the number.
    pub state: u8,
    /// Text for the user.
    pub message: String,
}

impl Cause {
    /// Number, state and text of this cause for `account`.
    #[must_use]
    pub fn refusal(&self, account: Option<&AccountId>) -> Refused {
        let who = account.map_or_else(|| "this login".to_owned(), |a| format!("account '{a}'"));
        let (number, state) = self.case();
        Refused {
            number,
            state,
            message: self.text(&who),
        }
    }

    /// Number and state.
    const fn case(&self) -> (u32, u8) {
        match self {
            Self::CreditSpent { .. } => (50402, 1),
            Self::Frozen => (50403, 1),
            Self::UnknownTenant => (50403, 2),
            Self::NotAllowed(_) => (50403, 3),
            Self::IntegratedUnverified => (50403, 4),
            Self::Limit(_) => (50429, 1),
            Self::BalanceUnknown(_) => (50503, 1),
            Self::Unmeterable(_) => (50400, 1),
            Self::Routed(_) => (50400, 2),
            Self::UnknownCommand(_) => (50400, 3),
            Self::LoginFailed => (LOGIN_FAILED, 1),
            Self::Upstream(_) => (50504, 1),
            Self::UpstreamEncryption(_) => (50504, 2),
            Self::NoMars => (50504, 3),
        }
    }

    /// What `who` is told.
    fn text(&self, who: &str) -> String {
        match self {
            Self::CreditSpent {
                available,
                price,
                currency,
            } => format!(
                "Weir: the credit of {who} is spent: {available} {currency} left, the next row costs {price} {currency}. \
                 Top the account up and run the statement again; EXEC weir.balance shows the balance."
            ),
            Self::Frozen => format!("Weir: {who} is frozen. Ask the operator of this gateway."),
            Self::UnknownTenant => {
                "Weir: no account belongs to this login. Ask the operator of this gateway to create one."
                    .to_owned()
            }
            Self::NotAllowed(what) => format!("Weir: {what}."),
            Self::IntegratedUnverified => INTEGRATED_UNVERIFIED.to_owned(),
            Self::Limit(what) => format!("Weir: {what}. Try again later."),
            Self::BalanceUnknown(why) => format!(
                "Weir: the balance of {who} cannot be checked now ({why}). Nothing was charged; try again later."
            ),
            Self::Unmeterable(what) => format!("Weir: this cannot be metered and is refused: {what}."),
            Self::Routed(what) => format!("Weir: the server tried to lead the client elsewhere ({what})."),
            Self::UnknownCommand(name) => {
                let known = super::command::NAMES;
                format!("Weir: the gate knows no command 'weir.{name}'. It knows {known}.")
            }
            Self::LoginFailed => {
                "Login failed for this user: its password at the gateway is wrong.".to_owned()
            }
            Self::Upstream(why) => {
                format!("Weir: the SQL Server behind this gateway is not reachable: {why}.")
            }
            Self::UpstreamEncryption(why) => format!(
                "Weir: this gateway and the SQL Server behind it come to no encryption: {why}. Tell the operator of this gateway."
            ),
            Self::NoMars => NO_MARS.to_owned(),
        }
    }
}
