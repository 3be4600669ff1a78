//! Snapshots: the wallets as text, so that a start reads only the events after them.

use std::collections::{HashMap, HashSet};

use crate::{
    ports::event_store::{EventStore, StoreError},
    wallet::{Wallet, WalletId},
};

/// How wallets are written; raised whenever `Wallet` or `Hold` changes, so that old text is never misread.
pub const SNAPSHOT_FORMAT: u32 = 1;
/// Events between snapshots: what a start reads at most, some 50 ms.
pub const SNAPSHOT_EVENTS: u64 = 10_000;

/// What the next snapshot must bring forward.
#[derive(Default)]
pub(super) struct Pending {
    changed: HashSet<WalletId>,
    saved_at: u64,
}

impl Pending {
    /// These changed since the last snapshot.
    pub(super) fn note(&mut self, wallets: impl IntoIterator<Item = WalletId>) {
        self.changed.extend(wallets);
    }

    /// Saves a snapshot when enough has happened since the last one. It is only a shortcut: a failure is reported and tried later.
    pub(super) fn save_if_due(
        &mut self,
        store: &dyn EventStore,
        wallets: &HashMap<WalletId, Wallet>,
        head: u64,
    ) {
        if head < self.saved_at.saturating_add(SNAPSHOT_EVENTS) {
            return;
        }
        self.saved_at = head;
        if let Err(e) = self.save(store, wallets, head) {
            tracing::warn!(error = %e, "the snapshot of the wallets was not saved; the next start reads more events");
        }
    }

    fn save(
        &mut self,
        store: &dyn EventStore,
        wallets: &HashMap<WalletId, Wallet>,
        head: u64,
    ) -> Result<(), StoreError> {
        let mut texts = Vec::with_capacity(self.changed.len());
        for wallet in self.changed.iter().filter_map(|id| wallets.get(id)) {
            let text = serde_json::to_string(wallet).map_err(|e| StoreError::Damaged(e.to_string()))?;
            texts.push((wallet.id, text));
        }
        if store.save_snapshot(SNAPSHOT_FORMAT, head, &texts)? {
            self.changed.clear();
        }
        Ok(())
    }
}

/// The wallets at a position; by default none at the beginning.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) wallets: HashMap<WalletId, Wallet>,
    pub(super) position: u64,
}

/// The snapshot; `None` when there is none that can be used.
pub(super) fn load(store: &dyn EventStore) -> Result<Option<Loaded>, StoreError> {
    let Some(snapshot) = store.snapshot()? else {
        return Ok(None);
    };
    if snapshot.format != SNAPSHOT_FORMAT || snapshot.position > store.head()? {
        return Ok(None);
    }
    let mut wallets = HashMap::with_capacity(snapshot.wallets.len());
    for text in &snapshot.wallets {
        match serde_json::from_str::<Wallet>(text) {
            Ok(wallet) if wallet.position <= snapshot.position => {
                wallets.insert(wallet.id, wallet);
            }
            _ => {
                tracing::error!("the snapshot of the wallets cannot be read: every event is read instead");
                return Ok(None);
            }
        }
    }
    Ok(Some(Loaded {
        wallets,
        position: snapshot.position,
    }))
}

impl Pending {
    /// After a start from a snapshot at this position.
    pub(super) fn since(position: u64) -> Self {
        Self {
            changed: HashSet::new(),
            saved_at: position,
        }
    }
}
