//! `weir selftest --upstream`: the safe part of the conformance suite on a user's own server, directly and through Weir.
//!
//! | file | what |
//! |---|---|
//! | `client.rs` | a TDS client that counts and keeps the answer's bytes |
//! | `checks.rs` | what is asked, and what a right answer holds |
//! | `gate.rs` | wallet, billing and proxy in this process, in front of the server |
//!
//! Every check is first asked directly; what goes through Weir must then bring the same tokens, byte for byte, and be
//! booked with the rows and bytes that the client counted. At last the credit is spent to the row.

mod checks;
mod client;
mod gate;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use weir_proxy::{
    config::{Config, UpstreamEncryption},
    session::encryption::UpstreamTls,
};
use weir_tds::password::Password;
use zeroize::Zeroizing;

use self::{
    checks::{Ask, Check, LONG_ROWS},
    client::{Answer, Client, ClientError, Mode, Target},
    gate::{Booked, Gate},
};
use crate::{
    cli::ServerArgs,
    demo::{DemoError, services::Upstream},
};

/// Rows that the credit covers when it is spent to the row.
const LAST_ROWS: u64 = 500;
/// Number of the error behind a response that was cut for want of credit (docs/errors.md).
const CREDIT_SPENT: i32 = 50402;
/// A top-up opens the gate within a second; the self-test waits longer before it calls that a fault.
const OPENS_WITHIN: Duration = Duration::from_secs(5);

/// Why the self-test could not be begun or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelftestError {
    /// The password's file.
    #[error("cannot read the password from {path}: {error}")]
    Password {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A flag cannot be used.
    #[error("{0}")]
    Usage(String),
    /// Certificates cannot be used.
    #[error("{0}")]
    Certificates(#[from] weir_proxy::config::ConfigError),
    /// The server cannot be tested at all.
    #[error("{address} cannot be tested: {error}")]
    Server {
        /// Which.
        address: String,
        /// Why.
        error: ClientError,
    },
    /// Weir itself did not start.
    #[error("Weir for the self-test: {0}")]
    Gate(#[from] DemoError),
    /// Weir's own services did not answer.
    #[error("Weir for the self-test: {0}")]
    Books(#[from] crate::client::ClientError),
}

impl SelftestError {
    /// True when the caller can put it right by other flags.
    pub(crate) fn is_config(&self) -> bool {
        matches!(
            self,
            Self::Password { .. } | Self::Usage(_) | Self::Certificates(_)
        )
    }
}

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Holds,
    /// The server refuses the statement itself, or does not offer the encryption: nothing to compare.
    LeftOut,
    Fails,
}

/// One line of the report.
struct Line {
    check: String,
    verdict: Verdict,
    detail: String,
}

/// Why an answer is not what it should be.
enum Fault {
    /// The server says with an error that it cannot do this.
    Refused(String),
    /// Anything else: other rows, tokens that cannot be read, a closed connection, silence.
    Wrong(String),
}

/// Runs the suite; the report as JSON: `ok`, `place`, and `checks` of `check`, `ok`, `left_out`, `detail`.
pub(crate) fn run(address: &str, args: &ServerArgs) -> Result<Value, SelftestError> {
    let direct = target(address, args)?;
    let mut suite = Suite {
        lines: Vec::new(),
        modes: Vec::new(),
        product: String::new(),
    };
    let mode = suite.ask_for_modes(&direct)?;
    let known = suite.ask_directly(&direct, mode);
    suite.ask_through_weir(&direct, args, &known)?;
    Ok(suite.report(address))
}

/// A check's answers when it was asked directly; `None` when it could not be asked there.
type Known = Vec<(Check, Option<Vec<Answer>>)>;

struct Suite {
    lines: Vec<Line>,
    /// Encryption modes that the server takes, strongest first.
    modes: Vec<Mode>,
    product: String,
}

impl Suite {
    /// Which encryption modes the server takes, asked directly; the strongest.
    fn ask_for_modes(&mut self, direct: &Target) -> Result<Mode, SelftestError> {
        let mut failed = ClientError::NotOffered;
        for mode in Mode::ALL.into_iter().rev() {
            let check = format!("directly, {}", mode.name());
            match Client::connect(direct, mode) {
                Ok(client) => {
                    self.product.clone_from(&client.product);
                    self.modes.push(mode);
                    self.note(check, Verdict::Holds, "the server takes it");
                }
                Err(error) => {
                    self.note(
                        check,
                        Verdict::LeftOut,
                        format!("the server does not take it: {error}"),
                    );
                    // A refused login says more than an encryption that is not offered.
                    if !matches!(failed, ClientError::Refused(_)) {
                        failed = error;
                    }
                }
            }
        }
        self.modes.first().copied().ok_or_else(|| SelftestError::Server {
            address: direct.address.clone(),
            error: failed,
        })
    }

    /// The truth that Weir is held to. What the server refuses is left out; what it answers wrongly fails.
    fn ask_directly(&mut self, direct: &Target, mode: Mode) -> Known {
        let mut known = Known::new();
        for check in checks::all() {
            let answers = carry_out(&check, direct, mode).map_err(Fault::Wrong);
            let right = answers.and_then(|answers| right(&check, &answers).map(|()| answers));
            let (verdict, detail) = match &right {
                Ok(_) => (Verdict::Holds, String::new()),
                // Every server can do the first; one that cannot is none that can be tested.
                Err(Fault::Refused(why)) if check.name != checks::FIRST => {
                    (Verdict::LeftOut, format!("the server: {why}"))
                }
                Err(Fault::Refused(why) | Fault::Wrong(why)) => {
                    (Verdict::Fails, format!("the server: {why}"))
                }
            };
            if verdict != Verdict::Holds {
                self.note(format!("directly, {}", check.name), verdict, detail);
            }
            known.push((check, right.ok()));
        }
        known
    }

    fn ask_through_weir(
        &mut self,
        direct: &Target,
        args: &ServerArgs,
        known: &Known,
    ) -> Result<(), SelftestError> {
        let mut gate = Gate::start()?;
        let asked = known.iter().filter_map(|(_, answers)| answers.as_ref());
        let rows: u64 = asked.flatten().map(|answer| answer.rows).sum();
        // A cancelled answer may bring more rows this time than it did the last, up to all of them.
        let cancelled = known.iter().flat_map(|(check, _)| &check.steps);
        let cancelled = cancelled
            .filter(|(ask, _)| matches!(ask, Ask::Cancelled(_)))
            .count() as u64;
        let ways = (self.modes.len() * Mode::ALL.len()) as u64;
        gate.open_account(&direct.user, rows + cancelled * LONG_ROWS + ways)?;
        let mut counted = Vec::new();
        let modes = self.modes.clone();
        for (position, mode) in modes.iter().enumerate() {
            let through = self.listen(&mut gate, direct, args, *mode)?;
            for client_mode in Mode::ALL {
                self.one_row(&through, client_mode, *mode, &mut counted);
            }
            if position == 0 {
                self.compare(&through, known, &mut counted);
            }
        }
        let through = self.listen(
            &mut gate,
            direct,
            args,
            modes.first().copied().unwrap_or(Mode::None),
        )?;
        self.compare_books(&gate, &counted)?;
        self.spend(&gate, &through)
    }

    fn listen(
        &self,
        gate: &mut Gate,
        direct: &Target,
        args: &ServerArgs,
        mode: Mode,
    ) -> Result<Target, SelftestError> {
        let address = gate.listen(&Upstream {
            address: direct.address.clone(),
            encryption: upstream_encryption(mode),
            ca: args.ca.clone(),
            trust: args.trust,
            host_name: args.host_name.clone(),
        })?;
        Ok(Target {
            address: address.to_string(),
            tls: tls(&Config {
                upstream: address.to_string(),
                upstream_ca: Some(gate.certificate().to_owned()),
                ..Config::default()
            })?,
            ..direct.clone()
        })
    }

    /// One row by one pair of encryption modes.
    fn one_row(&mut self, through: &Target, client: Mode, server: Mode, counted: &mut Vec<Answer>) {
        let check = Check {
            name: checks::FIRST,
            steps: checks::one_row(),
        };
        let outcome = carry_out(&check, through, client);
        let fault = match &outcome {
            Ok(answers) => right(&check, answers).err().map(Fault::text),
            Err(fault) => Some(fault.clone()),
        };
        counted.extend(outcome.unwrap_or_default());
        self.judge(
            format!("client {}, server {}", client.name(), server.name()),
            fault,
            "one row",
        );
    }

    fn compare(&mut self, through: &Target, known: &Known, counted: &mut Vec<Answer>) {
        for (check, direct) in known {
            let Some(direct) = direct else { continue };
            let outcome = carry_out(check, through, Mode::On);
            let fault = match &outcome {
                Ok(answers) => right(check, answers)
                    .map_err(Fault::text)
                    .and_then(|()| same(check, direct, answers))
                    .err(),
                Err(fault) => Some(fault.clone()),
            };
            let answers = outcome.unwrap_or_default();
            let rows: u64 = answers.iter().map(|answer| answer.rows).sum();
            counted.extend(answers);
            self.judge(
                format!("through Weir, {}", check.name),
                fault,
                format!("{rows} rows, the same as directly"),
            );
        }
    }

    /// Every request must be booked with the rows and bytes that the client counted.
    fn compare_books(&mut self, gate: &Gate, counted: &[Answer]) -> Result<(), SelftestError> {
        let booked = gate.booked()?;
        let fault = booked_as_counted(&booked, counted).err();
        self.judge(
            "metered as received".to_owned(),
            fault,
            format!("{} requests", counted.len()),
        );
        Ok(())
    }

    /// The credit that is left buys exactly so many rows; then a top-up opens the gate again.
    fn spend(&mut self, gate: &Gate, through: &Target) -> Result<(), SelftestError> {
        let drain = gate.rows_left()?.saturating_sub(LAST_ROWS);
        let fault = spend_to_the_row(gate, through, drain).err();
        self.judge(
            "cut off at the row, and open again".to_owned(),
            fault,
            format!("{LAST_ROWS} rows of {LONG_ROWS}, and {LAST_ROWS} after a top-up"),
        );
        let difference = gate.reconcile()?;
        self.judge("Weir's books add up".to_owned(), difference, "every sum agrees");
        Ok(())
    }

    fn judge(&mut self, check: String, fault: Option<String>, holds: impl Into<String>) {
        match fault {
            Some(fault) => self.note(check, Verdict::Fails, fault),
            None => self.note(check, Verdict::Holds, holds),
        }
    }

    fn note(&mut self, check: String, verdict: Verdict, detail: impl Into<String>) {
        self.lines.push(Line {
            check,
            verdict,
            detail: detail.into(),
        });
    }

    fn report(&self, address: &str) -> Value {
        let line = |line: &Line| {
            json!({
                "check": line.check,
                "ok": line.verdict != Verdict::Fails,
                "left_out": line.verdict == Verdict::LeftOut,
                "detail": line.detail,
            })
        };
        let checks: Vec<Value> = self.lines.iter().map(line).collect();
        let ok = self.lines.iter().all(|line| line.verdict != Verdict::Fails);
        json!({ "ok": ok, "place": format!("{address} ({})", self.product), "checks": checks })
    }
}

impl Fault {
    fn text(self) -> String {
        match self {
            Self::Refused(why) | Self::Wrong(why) => why,
        }
    }
}

/// The credit that is left is spent to the row; a top-up then buys as much again.
fn spend_to_the_row(gate: &Gate, through: &Target, drain: u64) -> Result<(), String> {
    let failed = |error: ClientError| error.to_string();
    let mut client = Client::connect(through, Mode::On).map_err(failed)?;
    let mut ask = |text: String| checks::ask(&mut client, &Ask::Batch(text)).map_err(failed);
    let mut to_drain = drain;
    while to_drain > 0 {
        let rows = to_drain.min(LONG_ROWS);
        let answer = ask(checks::first_rows(rows))?;
        if answer.rows != rows || !answer.errors.is_empty() {
            return Err(format!("{} rows with credit for {rows}", answer.rows));
        }
        to_drain -= rows;
    }
    let cut = ask(checks::long_statement())?;
    if cut.rows != LAST_ROWS {
        return Err(format!("{} rows with credit for {LAST_ROWS}", cut.rows));
    }
    if !matches!(cut.errors.as_slice(), [(CREDIT_SPENT, ..)]) {
        return Err(format!("errors {:?} instead of {CREDIT_SPENT}", cut.errors));
    }
    gate.top_up(LAST_ROWS).map_err(|error| error.to_string())?;
    // The proxy hears of a top-up within a second; until then its own mark refuses.
    let deadline = Instant::now() + OPENS_WITHIN;
    let mut again = ask(checks::first_rows(LAST_ROWS))?;
    while matches!(again.errors.as_slice(), [(CREDIT_SPENT, ..)]) && Instant::now() < deadline {
        again = ask(checks::first_rows(LAST_ROWS))?;
    }
    if again.rows != LAST_ROWS || !again.errors.is_empty() {
        return Err(format!(
            "after the top-up {} rows, errors {:?}",
            again.rows, again.errors
        ));
    }
    Ok(())
}

/// Asks a check's steps on a connection of their own.
fn carry_out(check: &Check, target: &Target, mode: Mode) -> Result<Vec<Answer>, String> {
    let mut client = Client::connect(target, mode).map_err(|error| error.to_string())?;
    let answers = check.steps.iter().map(|(ask, _)| checks::ask(&mut client, ask));
    answers
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

fn right(check: &Check, answers: &[Answer]) -> Result<(), Fault> {
    for (step, ((_, expect), answer)) in check.steps.iter().zip(answers).enumerate() {
        if let Some(fault) = checks::judge(answer, expect) {
            let fault = format!("step {}: {fault}", step + 1);
            return Err(if expect.errors.is_empty() && !answer.errors.is_empty() {
                Fault::Refused(fault)
            } else {
                Fault::Wrong(fault)
            });
        }
    }
    Ok(())
}

/// What came through Weir must be what came directly, byte for byte, but for what is cancelled.
fn same(check: &Check, direct: &[Answer], through: &[Answer]) -> Result<(), String> {
    for (step, ((ask, _), (one, other))) in check.steps.iter().zip(direct.iter().zip(through)).enumerate() {
        if matches!(ask, Ask::Cancelled(_)) {
            continue;
        }
        if one.lasting != other.lasting {
            let at = one
                .lasting
                .iter()
                .zip(&other.lasting)
                .take_while(|(a, b)| a == b)
                .count();
            return Err(format!(
                "step {}: the answers differ from byte {at} on ({} and {} bytes)",
                step + 1,
                one.lasting.len(),
                other.lasting.len()
            ));
        }
    }
    Ok(())
}

fn booked_as_counted(booked: &[Booked], counted: &[Answer]) -> Result<(), String> {
    if booked.len() != counted.len() {
        return Err(format!(
            "{} requests were booked, {} were asked",
            booked.len(),
            counted.len()
        ));
    }
    for (number, (booked, counted)) in booked.iter().zip(counted).enumerate() {
        if (booked.rows, booked.bytes) != (counted.rows, counted.payload) {
            return Err(format!(
                "request {}: booked {} rows and {} bytes ({}), received {} rows and {} bytes",
                number + 1,
                booked.rows,
                booked.bytes,
                booked.outcome,
                counted.rows,
                counted.payload
            ));
        }
    }
    Ok(())
}

fn upstream_encryption(mode: Mode) -> UpstreamEncryption {
    match mode {
        Mode::None => UpstreamEncryption::None,
        Mode::LoginOnly => UpstreamEncryption::LoginOnly,
        Mode::On => UpstreamEncryption::Full,
        Mode::Strict => UpstreamEncryption::Strict,
    }
}

fn target(address: &str, args: &ServerArgs) -> Result<Target, SelftestError> {
    if !address.contains(':') {
        return Err(SelftestError::Usage(format!(
            "--upstream {address}: name it as HOST:PORT"
        )));
    }
    let (Some(login), Some(file)) = (&args.login, &args.password_file) else {
        return Err(SelftestError::Usage(
            "--upstream needs --login and --password-file".to_owned(),
        ));
    };
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.map_err(|error| SelftestError::Password {
        path: file.clone(),
        error,
    })?;
    Ok(Target {
        address: address.to_owned(),
        user: login.clone(),
        password: Password::from_text(text.trim_end_matches(['\r', '\n'])),
        database: args.database.clone(),
        tls: tls(&Config {
            upstream: address.to_owned(),
            upstream_ca: args.ca.clone(),
            upstream_trust: args.trust,
            upstream_host_name: args.host_name.clone(),
            ..Config::default()
        })?,
    })
}

/// Verification as the proxy's own upstream leg does it.
fn tls(config: &Config) -> Result<UpstreamTls, SelftestError> {
    weir_proxy::tls::for_upstream(config)?
        .ok_or_else(|| SelftestError::Usage("there is no TLS to test with".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(lasting: &[u8]) -> Answer {
        Answer {
            rows: 1,
            result_sets: 1,
            payload: 40,
            lasting: lasting.to_vec(),
            ..Answer::default()
        }
    }

    #[test]
    fn an_answer_that_differs_by_a_byte_is_a_fault() {
        let check = Check {
            name: checks::FIRST,
            steps: checks::one_row(),
        };
        assert_eq!(same(&check, &[answer(b"abc")], &[answer(b"abc")]), Ok(()));
        let fault = same(&check, &[answer(b"abc")], &[answer(b"abd")]).unwrap_err();
        assert!(fault.contains("from byte 2 on"), "{fault}");
        assert!(same(&check, &[answer(b"abc")], &[answer(b"ab")]).is_err());
    }

    #[test]
    fn books_that_differ_from_what_was_received_are_a_fault() {
        let booked = |rows, bytes| Booked {
            rows,
            bytes,
            outcome: "completed".to_owned(),
        };
        let counted = [answer(b"")];
        assert_eq!(booked_as_counted(&[booked(1, 40)], &counted), Ok(()));
        assert!(booked_as_counted(&[booked(2, 40)], &counted).is_err());
        assert!(booked_as_counted(&[booked(1, 41)], &counted).is_err());
        assert!(booked_as_counted(&[], &counted).is_err());
    }

    #[test]
    fn what_the_server_refuses_is_told_from_what_it_answers_wrongly() {
        let check = Check {
            name: checks::FIRST,
            steps: checks::one_row(),
        };
        let refused = Answer {
            rows: 0,
            errors: vec![(262, 1, 14, "no".to_owned())],
            ..answer(b"")
        };
        assert!(matches!(right(&check, &[refused]), Err(Fault::Refused(_))));
        let wrong = Answer {
            rows: 2,
            ..answer(b"")
        };
        assert!(matches!(right(&check, &[wrong]), Err(Fault::Wrong(_))));
        assert!(right(&check, &[answer(b"")]).is_ok());
    }
}
