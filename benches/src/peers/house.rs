//! The back of the house behind Weir: wallet and billing as processes of their own, with accounts so rich that nothing is cut.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Peer;
use crate::failure::{Failure, Trying};
use crate::process::{Process, free_address, giving_way_on_core};

/// Price of a row in nano-units: what is charged tells the rows.
const ROW_NANOS: u64 = 1_000;
/// The same, as the API writes it.
const ROW_PRICE: &str = "0.000001";
/// Credit of an account: 10^15 rows.
const CREDIT: &str = "1000000000.00";
/// Most that one answer adds to a lease: 10^9 rows, so that leases are renewed as seldom as in production, and no answer waits.
const GRANT: &str = "1000.00";
/// How long the books may take until all usage is charged.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);
/// One call that waits for them: billing waits 20 s at most.
const CALL: Duration = Duration::from_secs(40);

/// Wallet and billing.
pub struct House {
    wallet: Process,
    billing: Process,
    billing_grpc: SocketAddr,
    rest: SocketAddr,
    token: String,
    token_file: PathBuf,
    outbox: PathBuf,
    agent: ureq::Agent,
    /// Balances before the first row, in nano-units, by login.
    credits: BTreeMap<&'static str, i128>,
}

impl House {
    /// Starts both on a core and opens the accounts.
    ///
    /// # Errors
    /// One does not come up or refuses an account.
    pub fn start(core: usize, directory: &Path) -> Result<Self, Failure> {
        let token = format!("{:032x}", std::process::id());
        let token_file = directory.join("token");
        std::fs::write(&token_file, &token).trying(token_file.display())?;
        let (outbox, broker) = (directory.join("outbox.db"), directory.join("broker.db"));
        let (wallet_rest, wallet_grpc) = (free_address()?, free_address()?);
        let mut command = giving_way_on_core(core, &program("weir-wallet")?);
        command
            .arg("run")
            .args(["--rest-listen", &wallet_rest.to_string()])
            .args(["--grpc-listen", &wallet_grpc.to_string()])
            .arg("--token-file")
            .arg(&token_file)
            .arg("--data-dir")
            .arg(directory.join("wallet"))
            .arg("--broker-path")
            .arg(&broker);
        let mut wallet = Process::start("wallet", command, directory)?;
        wallet.listens(wallet_grpc)?;
        let (rest, billing_grpc) = (free_address()?, free_address()?);
        let mut command = giving_way_on_core(core, &program("weir-billing")?);
        command
            .arg("run")
            .args(["--rest-listen", &rest.to_string()])
            .args(["--grpc-listen", &billing_grpc.to_string()])
            .args(["--wallet-url", &format!("http://{wallet_grpc}")])
            .args(["--wallet-rest-url", &format!("http://{wallet_rest}")])
            .args(["--lease-max-grant", GRANT])
            .arg("--token-file")
            .arg(&token_file)
            .arg("--data-dir")
            .arg(directory.join("billing"))
            .arg("--broker-path")
            .arg(&broker)
            .arg("--outbox-path")
            .arg(&outbox);
        let mut billing = Process::start("billing", command, directory)?;
        billing.listens(rest)?;
        billing.listens(billing_grpc)?;
        let config = ureq::Agent::config_builder().timeout_global(Some(CALL));
        let mut house = Self {
            wallet,
            billing,
            billing_grpc,
            rest,
            token,
            token_file,
            outbox,
            agent: config.http_status_as_error(false).build().into(),
            credits: BTreeMap::new(),
        };
        house.open_accounts()?;
        Ok(house)
    }

    fn open_accounts(&mut self) -> Result<(), Failure> {
        self.call(
            "PUT",
            "/api/tariffs/bench@1",
            &json!({ "currency": "USD", "per_row": ROW_PRICE }),
        )?;
        for peer in [Peer::Observing, Peer::Enforcing] {
            let login = peer.login();
            let mode = if peer == Peer::Observing {
                "observe"
            } else {
                "enforce"
            };
            let account = json!({
                "account": login, "login": login, "currency": "USD", "initial_credit": CREDIT, "tariff": "bench@1", "mode": mode,
            });
            let account = self.call("POST", "/api/accounts", &account)?;
            self.credits.insert(login, nanos(&account, "balance")?);
        }
        Ok(())
    }

    /// The numbers of its processes.
    #[must_use]
    pub fn processes(&self) -> [u32; 2] {
        [self.wallet.id(), self.billing.id()]
    }

    /// What a proxy is told of it.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        [
            ("--billing-url", format!("http://{}", self.billing_grpc)),
            ("--token-file", path(&self.token_file)),
            ("--outbox-path", path(&self.outbox)),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }

    /// Rows that a login was charged so far, once all that had ended is in the books.
    ///
    /// # Errors
    /// They do not come to rest in 3 minutes, or do not tell whole rows.
    pub fn charged_rows(&self, login: &str) -> Result<u64, Failure> {
        let end = Instant::now() + SETTLED_WITHIN;
        let path = format!("/api/accounts/{login}?wait_settled=1");
        let account = loop {
            match self.call("GET", &path, &Value::Null) {
                Ok(account) => break account,
                Err(failure) if Instant::now() > end => return Err(failure),
                Err(_) => {}
            }
        };
        let credit = self.credits.get(login).copied().unwrap_or_default();
        let charged = credit - nanos(&account, "balance")?;
        let price = i128::from(ROW_NANOS);
        if charged % price != 0 || charged < 0 {
            return Err(Failure(format!(
                "{login} was charged {charged} nano-units: no whole rows"
            )));
        }
        u64::try_from(charged / price).trying("charged rows")
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
        let url = format!("http://{}{path}", self.rest);
        let bearer = format!("Bearer {}", self.token);
        let answer = match method {
            "GET" => self.agent.get(&url).header("authorization", &bearer).call(),
            "PUT" => self
                .agent
                .put(&url)
                .header("authorization", &bearer)
                .send_json(body),
            _ => self
                .agent
                .post(&url)
                .header("authorization", &bearer)
                .send_json(body),
        };
        let mut answer = answer.trying(&url)?;
        let text = answer.body_mut().read_to_string().trying(&url)?;
        if !answer.status().is_success() {
            return Err(Failure(format!("{method} {url}: {} {text}", answer.status())));
        }
        serde_json::from_str(&text).trying(&url)
    }
}

/// A built program beside this one.
///
/// # Errors
/// It is not there.
pub fn program(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().trying("this program's path")?;
    // Tests are one directory below the programs.
    let places = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name));
    places.into_iter().find(|path| path.exists()).trying(format!(
        "no {name} beside {}: cargo build --release --workspace --bins",
        own.display()
    ))
}

/// A decimal amount of an answer in nano-units.
fn nanos(answer: &Value, field: &str) -> Result<i128, Failure> {
    let text = answer
        .get(field)
        .and_then(Value::as_str)
        .trying(format!("no {field} in {answer}"))?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{part:0<9}")
        .parse()
        .trying(format!("{field} is {text}"))
}
