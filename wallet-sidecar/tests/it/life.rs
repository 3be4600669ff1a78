//! Tables of decisions, and random lives of wallets beside a naive model.

use jiff::Timestamp;
use weir_contracts::money::{Amount, Currency};
use weir_wallet::{
    ledger::{LedgerAccount, TrialBalance, posting},
    wallet::{
        Command, Event, HoldId, Move, Recorded, Refusal, Status, UserId, Wallet, WalletId,
        apply::apply,
        decide::{Facts, decide},
    },
};

fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

fn movement(text: &str, currency: Option<Currency>) -> Move {
    Move {
        amount: amount(text),
        currency,
        reference_id: "ref".to_owned(),
        reference_type: "test".to_owned(),
        description: String::new(),
    }
}

fn status(status: Status) -> Command {
    Command::SetStatus {
        status,
        reason: "test".to_owned(),
    }
}

/// One command in words: `create 5`, `top-up 1`, `withdraw 1`, `hold a 2`, `capture a 1` (`-` for no hold), `release a`, `FROZEN`.
fn command(text: &str) -> Command {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["create", initial] => Command::Create {
            user: "demo".parse().unwrap(),
            currency: Currency::USD,
            initial: amount(initial),
        },
        ["top-up", text] => Command::TopUp(movement(text, None)),
        ["top-up", text, currency] => Command::TopUp(movement(text, Some(currency.parse().unwrap()))),
        ["withdraw", text] => Command::Withdraw(movement(text, None)),
        ["hold", id, total] => Command::PlaceHold {
            hold: id.parse().unwrap(),
            total: amount(total),
        },
        ["capture", id, text] => Command::Capture {
            hold: (id != "-").then(|| id.parse::<HoldId>().unwrap()),
            amount: amount(text),
            reference_id: "charge".to_owned(),
            description: String::new(),
        },
        ["release", id] => Command::ReleaseHold {
            hold: id.parse().unwrap(),
        },
        [name] => status(name.parse().unwrap()),
        _ => panic!("`{text}` is no command"),
    }
}

/// A wallet with all its events, and the sums of their postings.
#[derive(Default)]
struct Life {
    wallet: Option<Wallet>,
    events: Vec<Recorded>,
    ledger: TrialBalance,
    transactions: i128,
}

impl Life {
    /// After commands in words, parted by `;`.
    fn of(commands: &str) -> Self {
        let mut life = Self::default();
        for text in commands.split(';').filter(|text| !text.is_empty()) {
            life.step(&command(text), Facts::default()).unwrap();
        }
        life
    }

    fn step(&mut self, command: &Command, facts: Facts) -> Result<usize, Refusal> {
        let events = decide(self.wallet.as_ref(), command, facts)?;
        let count = events.len();
        for event in events {
            self.record(event);
        }
        Ok(count)
    }

    fn record(&mut self, event: Event) {
        let user: UserId = "demo".parse().unwrap();
        let recorded = Recorded {
            position: self.events.len() as u64 + 1,
            wallet: WalletId::of_user(&user),
            version: self.events.len() as u64 + 1,
            at: Timestamp::UNIX_EPOCH,
            event,
        };
        let postings = posting::postings(&recorded.event);
        assert!(posting::balanced(&postings), "{recorded:?}");
        for one in postings {
            self.ledger.add(Currency::USD, one);
        }
        let wallet = apply(self.wallet.take(), &recorded).unwrap();
        if let Some(txn) = recorded.transaction() {
            assert_eq!(txn.balance_after, wallet.balance().to_string(), "{recorded:?}");
            self.transactions += amount(&txn.amount).nanos();
        }
        self.wallet = Some(wallet);
        self.events.push(recorded);
        self.check();
    }

    fn wallet(&self) -> &Wallet {
        self.wallet.as_ref().unwrap()
    }

    fn check(&self) {
        let w = self.wallet();
        let rests: i128 = w.holds.values().map(|h| h.rest().nanos()).sum();
        assert!(!w.available.is_negative() && !w.receivable.is_negative());
        assert!(w.holds.values().all(|h| !h.rest().is_negative()));
        assert_eq!(w.held.nanos(), rests);
        assert!(w.receivable.is_zero() || w.available.is_zero());
        assert_eq!(self.transactions, w.balance().nanos() - w.receivable.nanos());
        let total = |account| self.ledger.total(Currency::USD, account);
        assert!(self.ledger.is_zero());
        assert_eq!(total(LedgerAccount::Wallet), w.available.negated());
        assert_eq!(total(LedgerAccount::Held), w.held.negated());
        assert_eq!(total(LedgerAccount::Receivable), w.receivable);
    }

    /// Balance, held, available, receivable.
    fn amounts(&self) -> String {
        let w = self.wallet();
        format!("{} {} {} {}", w.balance(), w.held, w.available, w.receivable)
    }
}

#[test]
fn what_each_command_leaves() {
    let rows = [
        ("create 0", "0.00 0.00 0.00 0.00"),
        (
            "create 5; top-up 0.000000001",
            "5.000000001 0.00 5.000000001 0.00",
        ),
        ("create 5; withdraw 5", "0.00 0.00 0.00 0.00"),
        ("create 5; hold a 2", "5.00 2.00 3.00 0.00"),
        ("create 5; hold a 2; hold a 2", "5.00 2.00 3.00 0.00"),
        ("create 5; hold a 2; hold a 3", "5.00 3.00 2.00 0.00"),
        ("create 5; hold a 2; hold a 1", "5.00 2.00 3.00 0.00"),
        ("create 5; hold a 9", "5.00 5.00 0.00 0.00"),
        ("create 5; hold a 2; capture a 1", "4.00 1.00 3.00 0.00"),
        // The total counts what was captured: asking for 3 in all adds 1 to the 2 granted before.
        ("create 5; hold a 2; capture a 2; hold a 3", "3.00 1.00 2.00 0.00"),
        ("create 5; hold a 2; capture a 4", "1.00 0.00 1.00 0.00"),
        ("create 5; hold a 2; capture a 6", "0.00 0.00 0.00 1.00"),
        ("create 5; capture - 6", "0.00 0.00 0.00 1.00"),
        ("create 5; capture never 1", "4.00 0.00 4.00 0.00"),
        // Another lease's hold is not touched by an excess.
        ("create 5; hold a 2; hold b 3; capture a 4", "3.00 3.00 0.00 2.00"),
        // What is owed is paid first: by a top-up, and by what a release gives back.
        ("create 1; capture - 3; top-up 1.5", "0.00 0.00 0.00 0.50"),
        ("create 1; capture - 3; top-up 5", "3.00 0.00 3.00 0.00"),
        (
            "create 5; hold a 2; hold b 3; capture a 4; release b",
            "1.00 0.00 1.00 0.00",
        ),
        (
            "create 5; hold a 2; capture a 1; release a",
            "4.00 0.00 4.00 0.00",
        ),
        ("create 5; release never", "5.00 0.00 5.00 0.00"),
        // Frozen: what was used is captured, what is left is released, money may come in.
        (
            "create 5; hold a 2; FROZEN; capture a 1; release a",
            "4.00 0.00 4.00 0.00",
        ),
        ("create 5; FROZEN; top-up 1", "6.00 0.00 6.00 0.00"),
        ("create 5; FROZEN; ACTIVE; withdraw 1", "4.00 0.00 4.00 0.00"),
        ("create 0; CLOSED; capture late 1", "0.00 0.00 0.00 1.00"),
    ];
    for (commands, expected) in rows {
        assert_eq!(Life::of(commands).amounts(), expected, "{commands}");
    }
}

#[test]
fn what_is_refused_and_why() {
    let rows = [
        ("", "top-up 1", "WALLET_NOT_FOUND"),
        ("", "create -1", "AMOUNT_NOT_POSITIVE"),
        ("create 5", "create 5", "WALLET_EXISTS"),
        ("create 5", "top-up 0", "AMOUNT_NOT_POSITIVE"),
        ("create 5", "top-up -1", "AMOUNT_NOT_POSITIVE"),
        ("create 5", "capture a 0", "AMOUNT_NOT_POSITIVE"),
        ("create 5", "hold a 0", "AMOUNT_NOT_POSITIVE"),
        ("create 5", "withdraw 5.000000001", "INSUFFICIENT_FUNDS"),
        ("create 5; hold a 1", "withdraw 4.5", "INSUFFICIENT_FUNDS"),
        ("create 9999999999999999999", "top-up 1", "AMOUNT_OUT_OF_RANGE"),
        ("create 5", "top-up 1 EUR", "CURRENCY_MISMATCH"),
        ("create 5; FROZEN", "hold a 1", "WALLET_FROZEN"),
        ("create 5; FROZEN", "withdraw 1", "WALLET_FROZEN"),
        ("create 5", "CLOSED", "WALLET_NOT_SETTLED"),
        ("create 0; capture - 1", "CLOSED", "WALLET_NOT_SETTLED"),
        ("create 0; CLOSED", "hold a 1", "WALLET_CLOSED"),
        ("create 0; CLOSED", "withdraw 1", "WALLET_CLOSED"),
        ("create 0; CLOSED", "top-up 1", "WALLET_CLOSED"),
        ("create 0; CLOSED", "ACTIVE", "WALLET_CLOSED"),
    ];
    for (before, asked, code) in rows {
        let life = Life::of(before);
        let refusal = decide(life.wallet.as_ref(), &command(asked), Facts::default()).unwrap_err();
        assert_eq!(refusal.code(), code, "{before}, then {asked}");
    }
    let released = Facts { hold_released: true };
    let refusal = decide(
        Some(Life::of("create 5").wallet()),
        &command("hold a 1"),
        released,
    );
    assert_eq!(refusal, Err(Refusal::HoldReleased));
}

#[test]
fn what_changes_nothing_is_no_event() {
    let mut life = Life::of("create 5; hold a 5");
    for text in ["hold a 5", "hold b 1", "ACTIVE", "release never"] {
        assert_eq!(life.step(&command(text), Facts::default()).unwrap(), 0, "{text}");
    }
}

#[test]
fn an_event_that_does_not_fit_is_found_not_applied() {
    let life = Life::of("create 5");
    let mut next = Recorded {
        position: 3,
        version: 3,
        event: Event::Withdrawn {
            amount: amount("6"),
            balance_after: amount("0"),
            reference_id: String::new(),
            reference_type: String::new(),
            description: String::new(),
        },
        ..life.events[1].clone()
    };
    assert!(apply(life.wallet.clone(), &next).is_err(), "more than there is");
    assert!(apply(None, &next).is_err(), "before the wallet was opened");
    next.version = 4;
    assert!(
        apply(life.wallet.clone(), &next)
            .unwrap_err()
            .why
            .contains("version")
    );
}

/// The same rules in the plainest form: integers in a list, no events.
#[derive(Default)]
struct Naive {
    frozen: bool,
    available: i128,
    owed: i128,
    holds: Vec<(u8, i128, i128)>,
    over: Vec<u8>,
}

impl Naive {
    fn put(&mut self, nanos: i128) {
        let pays = nanos.min(self.owed);
        self.owed -= pays;
        self.available += nanos - pays;
    }

    fn top_up(&mut self, nanos: i128) {
        self.put(nanos);
    }

    fn withdraw(&mut self, nanos: i128) -> bool {
        let may = !self.frozen && nanos <= self.available;
        if may {
            self.available -= nanos;
        }
        may
    }

    fn place(&mut self, id: u8, total: i128) -> bool {
        if self.frozen || self.over.contains(&id) {
            return false;
        }
        let known = self.holds.iter().position(|h| h.0 == id);
        let granted = known.map_or(0, |i| self.holds[i].1);
        let by = (total - granted).min(self.available).max(0);
        self.available -= by;
        match known {
            Some(i) => {
                self.holds[i].1 += by;
                self.holds[i].2 += by;
            }
            None if by > 0 => self.holds.push((id, by, by)),
            None => {}
        }
        true
    }

    fn capture(&mut self, id: u8, nanos: i128) {
        let mut left = nanos;
        if let Some(h) = self.holds.iter_mut().find(|h| h.0 == id) {
            let part = left.min(h.2);
            h.2 -= part;
            left -= part;
        }
        let part = left.min(self.available);
        self.available -= part;
        self.owed += left - part;
    }

    fn release(&mut self, id: u8) {
        if let Some(i) = self.holds.iter().position(|h| h.0 == id) {
            let (_, _, rest) = self.holds.remove(i);
            self.put(rest);
        }
        self.over.push(id);
    }

    fn held(&self) -> i128 {
        self.holds.iter().map(|h| h.2).sum()
    }
}

fn random_step(rng: &mut fastrand::Rng, life: &mut Life, naive: &mut Naive) {
    let id = rng.u8(0..6);
    let nanos = i128::from(rng.u64(1..=4_000_000_000));
    let (sum, part) = (Amount::from_nanos(nanos), Amount::from_nanos(nanos / 4 + 1));
    let facts = Facts {
        hold_released: naive.over.contains(&id),
    };
    let (asked, expected) = match rng.u8(0..10) {
        0 | 1 => {
            naive.top_up(nanos);
            (format!("top-up {sum}"), true)
        }
        2 => (format!("withdraw {sum}"), naive.withdraw(nanos)),
        3..=5 => (format!("hold h{id} {sum}"), naive.place(id, nanos)),
        6 | 7 => {
            naive.capture(id, part.nanos());
            (format!("capture h{id} {part}"), true)
        }
        8 => {
            naive.release(id);
            (format!("release h{id}"), true)
        }
        _ => {
            naive.frozen = !naive.frozen;
            let to = if naive.frozen { "FROZEN" } else { "ACTIVE" };
            (to.to_owned(), true)
        }
    };
    assert_eq!(life.step(&command(&asked), facts).is_ok(), expected, "{asked}");
}

#[test]
fn random_lives_agree_with_the_naive_model_and_with_their_replay() {
    let seeds =
        std::env::var("WEIR_TEST_SEED").map_or_else(|_| (0..200).collect(), |s| vec![s.parse().unwrap()]);
    for seed in seeds {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut life, mut naive) = (Life::of("create 3"), Naive::default());
        naive.available = 3_000_000_000;
        for step in 0..200 {
            random_step(&mut rng, &mut life, &mut naive);
            let w = life.wallet();
            let seen = (w.available.nanos(), w.held.nanos(), w.receivable.nanos());
            assert_eq!(
                seen,
                (naive.available, naive.held(), naive.owed),
                "seed {seed} step {step}"
            );
        }
        let replayed = life
            .events
            .iter()
            .fold(None, |wallet, event| Some(apply(wallet, event).unwrap()));
        assert_eq!(replayed, life.wallet, "seed {seed}");
        let stored = serde_json::to_string(&life.events[0].event).unwrap();
        assert_eq!(
            serde_json::from_str::<Event>(&stored).unwrap(),
            life.events[0].event
        );
    }
}
