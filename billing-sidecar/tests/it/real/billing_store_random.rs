//! Seeded: the same random operations on SQLite and on PostgreSQL give the same answers, step by step.

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;
use weir_billing::{
    domain::{lease::Lease, proxies::Registration, tariffs::Prices},
    ports::billing_store::BillingStore,
};
use weir_contracts::{
    entry::{EntryBody, Outcome},
    event::Place,
    ids::{AccountId, LeaseId},
};

use super::billing_store::InSchema;
use crate::{
    contract::billing_store::{Home, InFile, NOW, account, batch, furnish, place, prices},
    property::seed,
    world::{Journal, record},
};

const STEPS: usize = 500;
const ACCOUNTS: [&str; 4] = ["demo", "a", "b-1", "b.1"];
const TARIFFS: [&str; 3] = ["t@1", "t@2", "free@1"];

/// Both stores, and what is known of the world that talks to them.
struct Twins {
    sqlite: Arc<dyn BillingStore>,
    postgres: Arc<dyn BillingStore>,
    random: Rng,
    journals: Vec<Journal>,
    step: usize,
    /// How often rating answered what, by the answer's first word.
    answers: BTreeMap<String, u32>,
}

/// One operation on both; the answers must be alike to the letter.
macro_rules! alike {
    ($twins:expr, $store:ident => $call:expr) => {{
        let one = {
            let $store = &$twins.sqlite;
            format!("{:?}", $call.await)
        };
        let other = {
            let $store = &$twins.postgres;
            format!("{:?}", $call.await)
        };
        same(&$twins, stringify!($call), &one, &other);
        one
    }};
}

fn same(twins: &Twins, what: &str, one: &str, other: &str) {
    assert!(
        one == other,
        "seed {}, step {}: {what}\nSQLite:     {one}\nPostgreSQL: {other}",
        seed(),
        twins.step
    );
}

impl Twins {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.random.usize(..of.len())]
    }

    fn account(&mut self) -> AccountId {
        self.pick(&ACCOUNTS).parse().unwrap()
    }

    fn lease(&mut self) -> LeaseId {
        let n = self.random.usize(..self.journals.len());
        let number = self.random.u32(1..4);
        self.journals[n].lease(number)
    }

    /// Something that this or another proxy writes into its journal.
    fn append(&mut self, n: usize) {
        let lease = self.lease();
        if self.random.u8(..12) == 0 {
            self.journals[n].close(lease);
            return;
        }
        let (request, rows) = (self.random.u64(1..40), self.random.u64(..50));
        let mut usage = record(self.random.bool().then_some(lease), request, rows);
        usage.account = match self.random.u8(..40) {
            0 if self.random.u8(..6) == 0 => "unknown".parse().unwrap(),
            1..10 => self.account(),
            _ => usage.account,
        };
        usage.tariff = match self.random.u8(..40) {
            0 if self.random.u8(..6) == 0 => "unknown@1".into(),
            1..10 => self.pick(&TARIFFS).into(),
            _ => usage.tariff,
        };
        usage.session = self.random.u64(1..4);
        usage.outcome = [Outcome::Continued, Outcome::Completed, Outcome::CutOff][self.random.usize(..3)];
        usage.principal = self.pick(&["demo", "o'brien", "\u{1F600}\0"]).into();
        self.journals[n].usage(usage);
    }

    /// A batch of what is there, not always the next one, not always as it was.
    async fn rate(&mut self) {
        let n = self.random.usize(..self.journals.len());
        if self.random.u8(..30) == 0 {
            self.journals[n].epoch += 1;
        }
        for _ in 0..self.random.usize(..5) {
            self.append(n);
        }
        let proxy = self.journals[n].proxy;
        let mark = self.sqlite.mark(proxy).await.unwrap();
        let places: Vec<Place> = self.journals[n]
            .entries
            .iter()
            .map(|e| place(e.id.epoch, e.id.sequence))
            .collect();
        let next = places
            .iter()
            .position(|p| Some(*p) > mark)
            .unwrap_or(places.len());
        let from = match self.random.u8(..10) {
            0 => self.random.usize(..=places.len()),
            1 => next + self.random.usize(1..3),
            2..4 => next.saturating_sub(self.random.usize(..4)),
            _ => next,
        };
        let Some(first) = places.get(from) else { return };
        let most = self.random.usize(1..12);
        let length = places[from..]
            .iter()
            .take(most)
            .take_while(|p| p.epoch == first.epoch)
            .count();
        let mut entries = self.journals[n].entries[from..from + length].to_vec();
        if self.random.u8(..8) == 0
            && let Some(EntryBody::Usage(usage)) = entries.last_mut().map(|e| &mut e.body)
        {
            usage.bytes_in += 1;
        }
        let after = from
            .checked_sub(1)
            .map(|before| places[before])
            .filter(|_| self.random.u8(..30) > 0);
        let batch = batch(after, &entries);
        let answer = alike!(self, s => s.rate(Arc::clone(&batch), NOW));
        let kind = answer
            .trim_start_matches("Ok(")
            .split([' ', '(', ')'])
            .next()
            .unwrap();
        *self.answers.entry(kind.to_owned()).or_default() += 1;
        if kind == "Blocked" && self.random.bool() {
            self.forget_the_rest(n).await;
        }
    }

    /// What is blocked may stay so for good: its journal is made anew from the mark on.
    async fn forget_the_rest(&mut self, n: usize) {
        let journal = &mut self.journals[n];
        let mark = self.sqlite.mark(journal.proxy).await.unwrap();
        journal
            .entries
            .retain(|e| Some(place(e.id.epoch, e.id.sequence)) <= mark);
        journal.epoch = journal.entries.last().map_or(journal.epoch, |e| e.id.epoch);
    }

    async fn settle(&mut self) {
        let charges = self.sqlite.booked_charges(0, 10_000).await.unwrap();
        let newest = charges.len();
        if newest == 0 {
            return;
        }
        let id = charges[self.random.usize(newest.saturating_sub(30)..newest)]
            .id
            .clone();
        let txn = format!("t-{}", self.random.u8(..4));
        match self.random.u8(..8) {
            0..4 => alike!(self, s => s.set_captured(&id, &txn)),
            4..7 => alike!(self, s => s.set_itemized(&id)),
            _ => alike!(self, s => s.set_failed(&id, "refused\0")),
        };
    }

    async fn lend(&mut self) {
        let (id, grant) = (self.lease(), self.random.i64(-5..1_000_000));
        match self.random.u8(..4) {
            0 => {
                let lease = Lease::new(id, self.account(), self.pick(&TARIFFS).into());
                alike!(self, s => s.open_lease(lease.clone()))
            }
            1 | 2 => alike!(self, s => s.set_granted(id, grant)),
            _ => alike!(self, s => s.set_settled(id)),
        };
        alike!(self, s => s.lease(id));
    }

    async fn introduce(&mut self) {
        let n = self.random.usize(..self.journals.len());
        let epoch = self.random.u64(1..6);
        let start = Registration {
            proxy: self.journals[n].proxy,
            epoch,
            boot_nonce: format!("{epoch}.{}", self.random.u8(..2)),
            previous_boot_nonce: format!("{}.{}", epoch - 1, self.random.u8(..2)),
        };
        let mut new = account(self.pick(&ACCOUNTS));
        new.login = self.pick(&["demo", "DEMO", "a", "b", "Ｂ", "b.1"]).into();
        let tariff = prices().tariff(self.pick(&["t@2", "t@3"])).unwrap();
        match self.random.u8(..4) {
            0 => alike!(self, s => s.add_account(new.clone())),
            1 => alike!(self, s => s.add_tariff(tariff.clone())),
            2 => alike!(self, s => s.set_wallet(&new.id, "w-1")),
            _ => alike!(self, s => s.register(start.clone())),
        };
        alike!(self, s => s.known_start(start.proxy));
        alike!(self, s => s.account_by_login(&new.login));
    }

    async fn look(&mut self) {
        let (id, limit) = (self.account(), self.random.usize(..9));
        let n = self.random.usize(..self.journals.len());
        let entries = &self.journals[n].entries;
        let after = self
            .random
            .choice(entries)
            .map(|e| e.id.to_string())
            .filter(|_| limit % 3 > 0);
        alike!(self, s => s.usage(&id, after.as_deref(), limit));
        alike!(self, s => s.work(&id, limit));
        alike!(self, s => s.accounts_with_work(limit));
        alike!(self, s => s.unsettled(&id));
        let after = self.random.i64(-1..60);
        alike!(self, s => s.booked_charges(after, limit));
        alike!(self, s => s.charges_open());
    }

    async fn look_at_all(&mut self) {
        alike!(self, s => s.accounts());
        alike!(self, s => s.tariffs());
        alike!(self, s => s.marks());
        alike!(self, s => s.totals());
        alike!(self, s => s.book_facts());
        alike!(self, s => s.booked_charges(0, 100_000));
        for name in ACCOUNTS {
            let id = name.parse().unwrap();
            alike!(self, s => s.usage(&id, None, 100_000));
            alike!(self, s => s.work(&id, 100_000));
            alike!(self, s => s.unsettled(&id));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_stores_answer_alike_whatever_is_asked() {
    let (file, schema) = (InFile::new(), InSchema::new().await);
    let mut twins = Twins {
        sqlite: file.open().await,
        postgres: schema.open().await,
        random: Rng::with_seed(seed()),
        journals: (1..=3).map(Journal::new).collect(),
        step: 0,
        answers: BTreeMap::new(),
    };
    for store in [&twins.sqlite, &twins.postgres] {
        furnish(&**store).await;
        let free = serde_json::from_str::<Prices>(r#"{"currency":"USD"}"#).unwrap();
        store.add_tariff(free.tariff("free@1").unwrap()).await.unwrap();
        store.add_account(account("a")).await.unwrap();
    }
    for step in 0..STEPS {
        twins.step = step;
        match twins.random.u8(..20) {
            0..8 => twins.rate().await,
            8..12 => twins.settle().await,
            12..14 => twins.lend().await,
            14..16 => twins.introduce().await,
            16..19 => twins.look().await,
            _ => {
                twins.look_at_all().await;
                if twins.random.u8(..4) == 0 {
                    twins.sqlite = file.open().await;
                    twins.postgres = schema.open().await;
                }
            }
        }
    }
    twins.look_at_all().await;
    // That it met everything, whichever the seed.
    let answers = twins.answers;
    println!("{answers:?}");
    for kind in ["Rated", "Duplicate", "Gap", "OtherContent", "Blocked"] {
        assert!(answers.contains_key(kind), "{kind}: {answers:?}");
    }
    assert!(answers["Rated"] > 50, "{answers:?}");
}
