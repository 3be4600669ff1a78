//! The ledger's rules, one table of moves each.

use weir_contracts::{
    ids::{AccountId, ProxyId},
    money::Currency,
};

use super::*;
use crate::ports::billing::{Cut, Mode};

const VALID: Duration = Duration::from_secs(60);

struct Play {
    ledger: Ledger,
    now: Instant,
    number: u32,
}

fn terms(version: u32) -> Terms {
    let tariff = Tariff {
        version: format!("t@{version}"),
        per_request_nanos: 0,
        per_row_nanos: 10,
        per_kib_out_nanos: 0,
        per_kib_in_nanos: 0,
        per_bulk_row_nanos: 0,
        per_server_second_nanos: 0,
    };
    Terms {
        account: account(),
        currency: Currency::USD,
        mode: Mode::Enforce,
        cut: Cut::AtRow,
        tariff: Arc::new(tariff),
        row_credit_bytes: 0,
    }
}

fn account() -> AccountId {
    "a".parse().unwrap()
}

fn denial(reason: DenialReason) -> Denial {
    let text = String::new;
    Denial {
        reason,
        message: text(),
        balance: text(),
        available: text(),
        currency: text(),
    }
}

fn spent() -> LeaseAnswer {
    LeaseAnswer::Denial(denial(DenialReason::CreditSpent))
}

impl Play {
    fn new() -> Self {
        let ledger = Ledger {
            terms: Some(terms(1)),
            ..Ledger::default()
        };
        Self {
            ledger,
            now: Instant::now(),
            number: 0,
        }
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    /// A flight up to its question.
    fn ask(&mut self) -> (LeaseAsk, Stamp) {
        self.ledger.take_off();
        loop {
            match self.ledger.next_round(&account(), self.now) {
                Round::Ask(ask, stamp) => return (ask, stamp),
                Round::Open(terms) => {
                    self.number += 1;
                    let id = LeaseId {
                        proxy: ProxyId(uuid::Uuid::nil()),
                        epoch: 1,
                        number: self.number,
                    };
                    self.ledger.install(id, terms.tariff, self.now);
                }
                Round::Land => panic!("nothing to ask"),
            }
        }
    }

    fn answer(&mut self, (ask, stamp): (LeaseAsk, Stamp), answer: LeaseAnswer) -> bool {
        let again = self.ledger.answer(ask.lease, answer, stamp, self.now);
        self.ledger.land();
        again
    }

    fn grant(&mut self, total: i64) -> LeaseId {
        let asked = self.ask();
        let lease = asked.0.lease;
        let terms = self.ledger.terms.clone().unwrap();
        self.answer(
            asked,
            LeaseAnswer::Grant {
                granted_total_nanos: total,
                terms,
                valid: VALID,
            },
        );
        lease
    }

    fn look(&mut self, need: i64) -> Verdict {
        let waiter = self.ledger.waiter(need);
        self.ledger.examine(&waiter, self.now)
    }
}

#[test]
fn granted_is_leftover_and_outstanding_and_spent_and_a_repeated_grant_adds_nothing() {
    let mut play = Play::new();
    play.grant(100);
    play.grant(100);
    let slice = play.ledger.take(10, 60, play.now).unwrap();
    assert_eq!(
        (
            slice.nanos,
            play.ledger.state().leftover_nanos,
            play.ledger.state().outstanding_nanos
        ),
        (60, 40, 60)
    );
    play.ledger.spent(slice.lease.number, 50);
    play.ledger.give_back(slice.lease.number, 10);
    assert_eq!(
        (
            play.ledger.state().leftover_nanos,
            play.ledger.state().outstanding_nanos
        ),
        (50, 0)
    );
    assert!(play.ledger.take(51, 100, play.now).is_none());
    play.ledger.overdraw(slice.lease.number, 70);
    assert_eq!(play.ledger.state().leftover_nanos, -20);
    play.grant(150);
    assert_eq!(play.ledger.state().leftover_nanos, 30);
}

#[test]
fn a_refusal_waits_for_slices_that_may_come_back() {
    let mut play = Play::new();
    play.grant(15);
    let out = play.ledger.take(10, 10, play.now).unwrap();
    let asked = play.ask();
    play.answer(asked, spent());
    assert_eq!(play.look(10), Verdict::Wait);
    play.ledger.spent(out.lease.number, 10);
    assert_eq!(play.look(10), Verdict::Denied(denial(DenialReason::CreditSpent)));
    assert_eq!(play.look(5), Verdict::Enough);
}

#[test]
fn an_expired_lease_is_not_spent_from_until_billing_says_that_it_holds() {
    let mut play = Play::new();
    play.grant(15);
    play.after(VALID);
    assert!(play.ledger.take(1, 1, play.now).is_none());
    assert_eq!(play.look(10), Verdict::Fly);
    let asked = play.ask();
    play.answer(asked, spent());
    assert_eq!(play.look(10), Verdict::Enough);
    assert!(play.ledger.take(10, 10, play.now).is_some());
}

#[test]
fn a_freeze_that_crosses_a_grant_holds_and_a_thaw_that_crosses_a_denial_is_asked_about_again() {
    let mut play = Play::new();
    let asked = play.ask();
    play.ledger
        .notice(Some(denial(DenialReason::Frozen)), false, play.now);
    let granted = LeaseAnswer::Grant {
        granted_total_nanos: 100,
        terms: terms(1),
        valid: VALID,
    };
    play.answer(asked, granted);
    assert!(play.ledger.state().frozen);
    assert!(play.ledger.take(1, 1, play.now).is_none());
    let asked = play.ask();
    play.ledger.notice(None, true, play.now);
    let again = play.answer(asked, LeaseAnswer::Denial(denial(DenialReason::Frozen)));
    assert!(again && !play.ledger.state().frozen);
}

#[test]
fn a_lease_that_a_question_is_about_is_not_closed_before_the_answer() {
    let mut play = Play::new();
    let asked = play.ask();
    play.ledger.close_current();
    assert!(play.ledger.take_endings().is_empty());
    play.answer(
        asked,
        LeaseAnswer::Grant {
            granted_total_nanos: 9,
            terms: terms(1),
            valid: VALID,
        },
    );
    let endings = play.ledger.take_endings();
    assert_eq!((endings.len(), endings[0].leftover), (1, 9));
    assert!(play.ledger.take_endings().is_empty());
}

#[test]
fn credit_of_an_ended_lease_is_waited_for_but_not_for_ever() {
    let mut play = Play::new();
    let lease = play.grant(100);
    play.ledger.close_current();
    play.ledger.take_endings();
    play.ledger.ended(lease, play.now);
    let asked = play.ask();
    play.answer(asked, spent());
    assert_eq!(play.look(10), Verdict::Wait);
    play.after(RELEASE_RETRY);
    assert_eq!(play.look(10), Verdict::Fly);
    play.after(RELEASE_GRACE);
    let asked = play.ask();
    play.answer(asked, spent());
    assert_eq!(play.look(10), Verdict::Denied(denial(DenialReason::CreditSpent)));
}

#[test]
fn a_new_tariff_leaves_the_lease_and_a_closed_one_is_never_used_again() {
    let mut play = Play::new();
    let first = play.grant(100);
    play.ledger.attach(first.number);
    play.ledger.tell(String::new(), String::new(), Some(terms(2)));
    assert!(play.ledger.is_closing(first.number));
    let second = play.grant(50);
    assert_ne!(first, second);
    let asked = play.ask();
    assert!(play.answer(asked, LeaseAnswer::Denial(denial(DenialReason::LeaseClosed))));
    assert!(play.ledger.take(1, 1, play.now).is_none());
    let third = play.grant(20);
    assert_eq!(third.number, 3);
    play.ledger.detach(first.number, play.now);
    assert_eq!(play.ledger.take_endings().len(), 2);
}

#[test]
fn the_wish_follows_how_fast_it_burns_within_its_bounds() {
    let mut play = Play::new();
    let mut total = 0;
    let mut wishes = Vec::new();
    for _ in 0..20 {
        let (ask, stamp) = play.ask();
        total += ask.want_nanos;
        wishes.push(ask.want_nanos);
        let terms = terms(1);
        play.answer(
            (ask, stamp),
            LeaseAnswer::Grant {
                granted_total_nanos: total,
                terms,
                valid: VALID,
            },
        );
        let slice = play.ledger.take(1, i64::MAX, play.now).unwrap();
        play.ledger.spent(slice.lease.number, slice.nanos);
    }
    assert_eq!(
        (wishes[0], wishes[2], wishes[19]),
        (LEASE_WANT_MIN, 4 * LEASE_WANT_MIN, LEASE_WANT_MAX)
    );
    for _ in 0..20 {
        play.after(BURN_SLOW * 2);
        let (ask, stamp) = play.ask();
        total += ask.want_nanos;
        let terms = terms(1);
        play.answer(
            (ask, stamp),
            LeaseAnswer::Grant {
                granted_total_nanos: total,
                terms,
                valid: VALID,
            },
        );
        let slice = play.ledger.take(1, i64::MAX, play.now).unwrap();
        play.ledger.spent(slice.lease.number, slice.nanos);
    }
    assert_eq!(play.ask().0.want_nanos, LEASE_WANT_MIN);
}

#[test]
fn a_quiet_account_does_not_pile_up_credit() {
    let mut play = Play::new();
    play.grant(LEASE_WANT_MIN);
    play.after(VALID);
    assert_eq!(play.ask().0.want_nanos, 1);
}

/// Burns so much a tick for ten minutes; after a minute the account could at every moment go on without billing.
fn outlasts(burn: i64) {
    const TICK: Duration = Duration::from_millis(100);
    const TICKS_AWAY: i64 = 180;
    let mut play = Play::new();
    let mut total = LEASE_WANT_MIN;
    let mut spent = 0;
    play.grant(total);
    for tick in 0..6_000 {
        play.after(TICK);
        if let Some(slice) = play.ledger.take(burn, burn, play.now) {
            spent += slice.nanos;
            play.ledger.spent(slice.lease.number, slice.nanos);
        } else {
            assert!(tick < 600, "denied at tick {tick}, burning {burn}");
            play.ledger.need = burn;
        }
        if play.ledger.wants_renewal(play.now) || play.ledger.need > 0 {
            let (ask, stamp) = play.ask();
            total = ask.known_grant_nanos + ask.want_nanos;
            let grant = LeaseAnswer::Grant {
                granted_total_nanos: total,
                terms: terms(1),
                valid: VALID,
            };
            play.answer((ask, stamp), grant);
        }
        if tick < 600 {
            continue;
        }
        let lease = play.ledger.current.as_ref().unwrap();
        assert!(
            lease.leftover >= TICKS_AWAY * burn,
            "tick {tick}, burning {burn}: {lease:?}"
        );
        assert!(lease.valid_until.unwrap() >= play.now + VALID / 2 - TICK);
        assert!(
            total - spent <= (4_000 * burn).max(2 * LEASE_WANT_MIN),
            "tick {tick}, burning {burn}: {total} granted, {spent} spent"
        );
    }
}

#[test]
fn a_lease_outlasts_a_restart_of_billing_in_credit_and_in_time() {
    for burn in [1, 10_000, 1_000_000, 60_000_000, 200_000_000] {
        outlasts(burn);
    }
}

#[test]
fn a_lost_reply_told_again_does_not_make_the_wish_grow() {
    let mut play = Play::new();
    play.grant(LEASE_WANT_MIN);
    play.grant(LEASE_WANT_MIN);
    assert_eq!(play.ledger.wish(), LEASE_WANT_MIN);
}
