//! The contract of a store of financial items as a suite: on a scratch store of its own, which it removes in the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use uuid::Uuid;
use weir_contracts::{
    ids::AccountId,
    money::{Amount, Currency, MAX_NANOS},
};

use super::{Check, Report};
use crate::ports::{
    PortError,
    items::{FinancialItem, Items, ScratchItems},
};

/// Longest run; below the deadline of the answer that carries the report.
const SUITE_DEADLINE: Duration = Duration::from_secs(25);
/// How long a write is repeated that finds the store away, as the service repeats it.
const PATIENCE: Duration = Duration::from_secs(12);
/// Pause between two tries of a write.
const AGAIN_AFTER: Duration = Duration::from_millis(40);
/// The longest that a call may take before it must be answered, if only with an error.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Writers at one time.
const WRITERS: u64 = 4;
/// Items of each crowd.
const CROWD: u64 = 12;

/// Why a check does not hold, or that it cannot be made here.
type Outcome = Result<String, String>;

/// Runs the suite.
pub async fn run(scratch: &dyn ScratchItems) -> Report {
    let suite = Suite {
        scratch,
        name: Uuid::new_v4().simple().to_string(),
        until: Instant::now() + SUITE_DEADLINE,
        longest_micros: AtomicU64::new(0),
    };
    let checks = suite.checks().await;
    Report {
        ok: checks.iter().all(|check| check.ok),
        place: scratch.place(),
        checks,
    }
}

struct Suite<'a> {
    scratch: &'a dyn ScratchItems,
    name: String,
    until: Instant,
    /// The longest call so far.
    longest_micros: AtomicU64,
}

/// An item of no importance but its id and amount.
fn item(id: &str, nanos: i128) -> FinancialItem {
    FinancialItem {
        id: id.to_owned(),
        account: account("selftest"),
        lease: Some("selftest:1:1".to_owned()),
        tariff: "selftest@1".to_owned(),
        amount: Amount::from_nanos(nanos),
        currency: Currency::EUR,
        requests: 1,
        rows: 2,
        bytes_out: 3,
        txn_id: format!("txn-{id}"),
        rated_at: "2026-03-29T01:30:00.123456789Z".to_owned(),
    }
}

fn account(name: &str) -> AccountId {
    // A constant of this file: it parses, and the suite would tell otherwise.
    name.parse().unwrap_or_else(|e| unreachable!("{e}"))
}

impl Suite<'_> {
    async fn checks(&self) -> Vec<Check> {
        let opened = self.within(self.scratch.open(&self.name)).await;
        let items = match opened {
            Ok(items) => items,
            Err(e) => {
                // It may have been made before the connection was lost.
                let _ = self.within(self.scratch.remove(&self.name)).await;
                return vec![told("open", Err(e))];
            }
        };
        let items = &*items;
        let mut checks = vec![
            told("open", Ok("the scratch store is there".to_owned())),
            told("write", self.write(items).await),
            told("write again", self.again(items).await),
            told("other content is refused", self.other_content(items).await),
            told("amounts are exact", self.exact(items).await),
            told("large counts", self.large_counts(items).await),
            told("names of all scripts", self.scripts(items).await),
            told("id order", self.order(items).await),
            told("paging", self.paging(items).await),
            told("a second connection sees all", self.second(items).await),
            told("writers of one item", self.one_item().await),
            told("writers of one id, other contents", self.one_id().await),
            told("connection lost before a write", self.lost_before(items).await),
            told("connections lost between writes", self.lost_between(items).await),
        ];
        checks.push(told("deadlines", self.deadlines()));
        let removed = self.within(self.scratch.remove(&self.name)).await;
        checks.push(told(
            "remove",
            removed.map(|()| "the scratch store is gone".to_owned()),
        ));
        checks
    }

    /// A call with the suite's end as its deadline; its time is noted.
    async fn within<T>(&self, call: impl Future<Output = Result<T, PortError>>) -> Result<T, String> {
        self.timed(call).await?.map_err(|e| e.to_string())
    }

    async fn timed<T>(&self, call: impl Future<Output = T>) -> Result<T, String> {
        let began = Instant::now();
        // One second is kept for removing the scratch store.
        let by = self.until.max(began + Duration::from_secs(1));
        let answer = timeout_at(by, call).await;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.longest_micros.fetch_max(took, Ordering::Relaxed);
        answer.map_err(|_| "no answer before the suite's end".to_owned())
    }

    /// Writes as the service does: again when the store is away.
    async fn persist(&self, items: &dyn Items, item: &FinancialItem) -> Result<(), String> {
        let by = (Instant::now() + PATIENCE).min(self.until);
        loop {
            match self.timed(items.write(item)).await? {
                Err(PortError::Unavailable(..)) if Instant::now() < by => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                other => return other.map_err(|e| e.to_string()),
            }
        }
    }

    /// Everything whose id begins so, in the store's order, by pages of a size.
    async fn all(
        &self,
        items: &dyn Items,
        prefix: &str,
        page: usize,
    ) -> Result<Vec<(String, Amount)>, String> {
        let mut all: Vec<(String, Amount)> = Vec::new();
        let mut after = String::new();
        loop {
            let found = self.within(items.amounts_after(&after, page)).await?;
            if found.len() > page {
                return Err(format!("a page of {page} has {} items", found.len()));
            }
            let Some((last, _)) = found.last() else {
                break;
            };
            after.clone_from(last);
            all.extend(found);
        }
        all.retain(|(id, _)| id.starts_with(prefix));
        Ok(all)
    }

    async fn expect(
        &self,
        items: &dyn Items,
        prefix: &str,
        expected: &[FinancialItem],
    ) -> Result<(), String> {
        let mut expected: Vec<(String, Amount)> = expected.iter().map(|i| (i.id.clone(), i.amount)).collect();
        expected.sort();
        let found = self.all(items, prefix, 100).await?;
        if found == expected {
            return Ok(());
        }
        let first = expected.iter().zip(&found).find(|(e, f)| e != f);
        Err(match first {
            Some((expected, found)) => format!("expected {expected:?}, found {found:?}"),
            None => format!("expected {} items, found {}", expected.len(), found.len()),
        })
    }

    async fn write(&self, items: &dyn Items) -> Outcome {
        let one = item("write:1", 1_500_000_000);
        self.within(items.write(&one)).await?;
        self.expect(items, "write:", &[one]).await?;
        Ok("an item is there with its amount".to_owned())
    }

    async fn again(&self, items: &dyn Items) -> Outcome {
        let with_lease = item("again:1", 7);
        let mut without = item("again:2", 8);
        without.lease = None;
        for _ in 0..3 {
            self.within(items.write(&with_lease)).await?;
            self.within(items.write(&without)).await?;
        }
        self.expect(items, "again:", &[with_lease, without]).await?;
        Ok("three writes of each, one item of each".to_owned())
    }

    async fn other_content(&self, items: &dyn Items) -> Outcome {
        let one = item("other:1", 7);
        self.within(items.write(&one)).await?;
        let change = |change: fn(&mut FinancialItem)| {
            let mut other = one.clone();
            change(&mut other);
            other
        };
        let others = [
            ("account", change(|i| i.account = account("selftest2"))),
            ("lease", change(|i| i.lease = Some("selftest:1:2".to_owned()))),
            ("lease", change(|i| i.lease = None)),
            ("tariff", change(|i| i.tariff = "Selftest@1".to_owned())),
            ("amount", change(|i| i.amount = Amount::from_nanos(8))),
            ("currency", change(|i| i.currency = Currency::USD)),
            ("requests", change(|i| i.requests += 1)),
            ("rows", change(|i| i.rows += 1)),
            ("bytes", change(|i| i.bytes_out += 1)),
            ("transaction", change(|i| i.txn_id.push('x'))),
            (
                "time",
                change(|i| i.rated_at = "2026-03-29T01:30:00.2Z".to_owned()),
            ),
        ];
        for (field, other) in &others {
            match self.timed(items.write(other)).await? {
                Err(PortError::OtherContent(..)) => {}
                told => {
                    return Err(format!(
                        "another {field} under the same id is answered with {told:?}"
                    ));
                }
            }
        }
        self.within(items.write(&one)).await?;
        self.expect(items, "other:", &[one]).await?;
        Ok(format!(
            "{} differences refused, the first content kept",
            others.len()
        ))
    }

    async fn exact(&self, items: &dyn Items) -> Outcome {
        let amounts = [
            0,
            1,
            -1,
            100_000_000,
            999_999_999,
            123_456_789_012_345_678,
            -9_007_199_254_740_993,
            MAX_NANOS,
            -MAX_NANOS,
            MAX_NANOS - 1,
        ];
        let mut written = Vec::new();
        for (index, nanos) in amounts.into_iter().enumerate() {
            let one = item(&format!("exact:{index}"), nanos);
            self.within(items.write(&one)).await?;
            self.within(items.write(&one)).await?;
            written.push(one);
        }
        self.expect(items, "exact:", &written).await?;
        let most = Amount::from_nanos(MAX_NANOS);
        Ok(format!(
            "{} amounts up to ±{most}, to the last digit",
            amounts.len()
        ))
    }

    async fn large_counts(&self, items: &dyn Items) -> Outcome {
        let mut one = item("large:1", 7);
        let most = u64::try_from(i64::MAX).unwrap_or_default();
        (one.requests, one.rows, one.bytes_out) = (most - 2, most - 1, most);
        self.within(items.write(&one)).await?;
        self.within(items.write(&one)).await?;
        one.rows -= 1;
        match self.timed(items.write(&one)).await? {
            Err(PortError::OtherContent(..)) => Ok(format!("counts up to {most}")),
            told => Err(format!("a count that is one less is answered with {told:?}")),
        }
    }

    async fn scripts(&self, items: &dyn Items) -> Outcome {
        let names = [
            "über-Tarif@1",
            "тариф@2",
            "料金表@3",
            "🌊🪙@4",
            "quote ' and ; -- @5",
            "e\u{301}@6",
        ];
        for (index, name) in names.into_iter().enumerate() {
            let mut one = item(&format!("script:{index}"), 7);
            one.tariff = name.to_owned();
            self.within(items.write(&one)).await?;
            self.within(items.write(&one)).await?;
        }
        // What looks alike is not the same: other case, other accents, composed and decomposed.
        for (index, name) in [(0, "uber-Tarif@1"), (0, "ÜBER-Tarif@1"), (5, "é@6")] {
            let mut other = item(&format!("script:{index}"), 7);
            other.tariff = name.to_owned();
            match self.timed(items.write(&other)).await? {
                Err(PortError::OtherContent(..)) => {}
                told => return Err(format!("{name} is taken for {}: {told:?}", names[index])),
            }
        }
        Ok(format!("{} names kept to the letter", names.len()))
    }

    async fn order(&self, items: &dyn Items) -> Outcome {
        let ends = [
            "b", "B", "a", "A", "a:1", "a-1", "a_1", "a.1", "a10", "a2", "0", "~", "Z", "z", "a:", "aa",
        ];
        let mut written = Vec::new();
        for end in ends {
            let one = item(&format!("order:{end}"), 7);
            self.within(items.write(&one)).await?;
            written.push(one);
        }
        self.expect(items, "order:", &written).await?;
        Ok("ids stand in the order of their code points, cases apart".to_owned())
    }

    async fn paging(&self, items: &dyn Items) -> Outcome {
        let mut written = Vec::new();
        for n in 0..25_u32 {
            let one = item(&format!("page:{n:02}"), i128::from(n));
            self.within(items.write(&one)).await?;
            written.push((one.id, one.amount));
        }
        for page in [1, 7, 25, 1_000] {
            let found = self.all(items, "page:", page).await?;
            if found != written {
                return Err(format!(
                    "by {page}: {} items instead of {}",
                    found.len(),
                    written.len()
                ));
            }
        }
        Ok("25 items by 1, 7, 25 and 1000: each once, none skipped".to_owned())
    }

    async fn second(&self, items: &dyn Items) -> Outcome {
        let other = self.within(self.scratch.open(&self.name)).await?;
        let (ours, theirs) = (self.all(items, "", 100).await?, self.all(&*other, "", 100).await?);
        if ours != theirs {
            return Err(format!("{} items here, {} there", ours.len(), theirs.len()));
        }
        Ok(format!("{} items on both", ours.len()))
    }

    async fn writers(&self) -> Result<Vec<Arc<dyn Items>>, String> {
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            writers.push(self.within(self.scratch.open(&self.name)).await?);
        }
        Ok(writers)
    }

    /// Everybody writes the same items at one time.
    async fn one_item(&self) -> Outcome {
        let writers = self.writers().await?;
        let mut written = Vec::new();
        for n in 0..CROWD {
            let one = item(&format!("crowd:{n:02}"), i128::from(n));
            let all = writers.iter().map(|writer| self.persist(&**writer, &one));
            for told in futures_util::future::join_all(all).await {
                told?;
            }
            written.push(one);
        }
        for writer in &writers {
            self.expect(&**writer, "crowd:", &written).await?;
        }
        Ok(format!("{WRITERS} writers, {CROWD} items, each there once"))
    }

    /// Everybody writes another content under the same id: one wins, the others are told.
    async fn one_id(&self) -> Outcome {
        let writers = self.writers().await?;
        for n in 0..CROWD {
            let id = format!("rivals:{n:02}");
            let rivals: Vec<FinancialItem> = (1..=WRITERS).map(|w| item(&id, i128::from(w))).collect();
            let all = writers
                .iter()
                .zip(&rivals)
                .map(|(writer, rival)| self.rival(&**writer, rival));
            let mut winner = None;
            for (told, rival) in futures_util::future::join_all(all).await.into_iter().zip(&rivals) {
                if told? && winner.replace(rival).is_some() {
                    return Err(format!("two contents of {id} were taken"));
                }
            }
            let winner = winner.ok_or_else(|| format!("no content of {id} was taken"))?;
            let first = writers.first().ok_or_else(|| "no writer".to_owned())?;
            self.expect(&**first, &id, std::slice::from_ref(winner)).await?;
        }
        Ok(format!("{WRITERS} contents, {CROWD} ids, one taken of each"))
    }

    /// True when taken, false when another content was there.
    async fn rival(&self, writer: &dyn Items, rival: &FinancialItem) -> Result<bool, String> {
        let by = (Instant::now() + PATIENCE).min(self.until);
        loop {
            match self.timed(writer.write(rival)).await? {
                Ok(()) => return Ok(true),
                Err(PortError::OtherContent(..)) => return Ok(false),
                Err(PortError::Unavailable(..)) if Instant::now() < by => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    async fn lost_before(&self, items: &dyn Items) -> Outcome {
        let one = item("lost:1", 7);
        if !self.within(items.lose_connection()).await? {
            return Ok("no connection that could be lost".to_owned());
        }
        self.persist(items, &one).await?;
        self.persist(items, &one).await?;
        self.expect(items, "lost:", &[one]).await?;
        Ok("the item is there once".to_owned())
    }

    /// Another task drops the connection over and over while items are written.
    async fn lost_between(&self, items: &dyn Items) -> Outcome {
        if !self.within(items.lose_connection()).await? {
            return Ok("no connection that could be lost".to_owned());
        }
        let written: Vec<FinancialItem> = (0..CROWD)
            .map(|n| item(&format!("torn:{n:02}"), i128::from(n)))
            .collect();
        let done = AtomicBool::new(false);
        let writing = async {
            let mut result = Ok(());
            for one in &written {
                result = self.persist(items, one).await;
                if result.is_err() {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
            result
        };
        let tearing = async {
            let mut torn = 0_u32;
            while !done.load(Ordering::Relaxed) && items.lose_connection().await.is_ok() {
                torn += 1;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            torn
        };
        let (result, torn) = tokio::join!(writing, tearing);
        result?;
        self.expect(items, "torn:", &written).await?;
        Ok(format!(
            "{CROWD} items, each there once, over {torn} lost connections"
        ))
    }

    fn deadlines(&self) -> Outcome {
        let longest = Duration::from_micros(self.longest_micros.load(Ordering::Relaxed));
        let text = format!("the longest call took {} ms", longest.as_millis());
        if longest <= CALL_MAX { Ok(text) } else { Err(text) }
    }
}

fn told(check: &'static str, outcome: Outcome) -> Check {
    let ok = outcome.is_ok();
    let detail = outcome.unwrap_or_else(|e| e);
    Check { check, ok, detail }
}
