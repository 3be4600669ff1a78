//! What the outbox's promises need of a Redis server, checked before the service starts.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{Log, RedisError, connection::Server};

/// 6.2 is the first with `XTRIM MINID` and exclusive ranges: trimming behind the cursor and reading after it.
const VERSION_MIN: (u32, u32) = (6, 2);
/// Between two looks at a server that does not answer yet.
const WAIT_PAUSE: Duration = Duration::from_millis(250);
/// While waiting, a line is logged this often.
const TELL_EVERY: Duration = Duration::from_secs(5);

impl Log {
    /// Checks the server's version, role and settings. Answers warnings: what could not be checked.
    ///
    /// # Errors
    /// [`RedisError::Setting`] names the first wrong one and its remedy; [`RedisError::Refused`], [`RedisError::Unavailable`].
    pub async fn check_settings(&self) -> Result<Vec<String>, RedisError> {
        let info = self
            .server
            .call(|mut c| async move { redis::cmd("INFO").query_async::<String>(&mut c).await })
            .await;
        match info {
            Ok(info) => check(&self.server, &info),
            Err(RedisError::NotAllowed { .. }) => {
                // Signs in and may do the rest, as far as can be seen.
                self.last("").await?;
                Ok(vec![format!(
                    "Redis at {}: its settings cannot be checked, this user may not call INFO; see that it is 6.2 or later, no \
                     cluster, with maxmemory-policy noeviction and appendonly yes",
                    self.server.shown()
                )])
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Log::check_settings`], waiting up to `wait` for a server that is away or still loading.
    ///
    /// # Errors
    /// As there; [`RedisError::Unavailable`] only after `wait`.
    pub async fn ready(&self, wait: Duration) -> Result<Vec<String>, RedisError> {
        let end = Instant::now() + wait;
        let mut told = None::<Instant>;
        loop {
            match self.check_settings().await {
                Err(error) if error.is_unavailable() && Instant::now() + WAIT_PAUSE < end => {
                    if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                        tracing::warn!("waiting for a server: {error}");
                        told = Some(Instant::now());
                    }
                    tokio::time::sleep(WAIT_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }
}

fn check(server: &Server, info: &str) -> Result<Vec<String>, RedisError> {
    let info: HashMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .collect();
    let mut warnings = Vec::new();
    let mut field = |name: &'static str| {
        let value = info.get(name).copied();
        if value.is_none() {
            warnings.push(format!(
                "Redis at {} does not tell {name}, which therefore is not checked",
                server.shown()
            ));
        }
        value
    };
    let wrong = |setting, value: &str, remedy: String| {
        Err(RedisError::Setting {
            server: server.shown().to_owned(),
            setting,
            value: value.to_owned(),
            remedy,
        })
    };
    if let Some(version) = field("redis_version")
        && parse_version(version).is_some_and(|v| v < VERSION_MIN)
    {
        let remedy = "streams are trimmed behind a cursor (XTRIM MINID), which needs 6.2 or later: install a newer Redis";
        return wrong("redis_version", version, remedy.into());
    }
    if let Some(enabled @ "1") = field("cluster_enabled") {
        let remedy = "a stream, its cursor and the set of streams must be on one server: use one that is not a cluster node";
        return wrong("cluster_enabled", enabled, remedy.into());
    }
    if let Some(role) = field("role").filter(|role| *role != "master") {
        let remedy =
            "a replica takes no appends: give the master's address, or promote this one (REPLICAOF NO ONE)";
        return wrong("role", role, remedy.into());
    }
    let bounded = field("maxmemory").is_none_or(|bytes| bytes != "0");
    if let Some(policy) = field("maxmemory_policy").filter(|p| bounded && *p != "noeviction") {
        let remedy = "under memory pressure it would delete usage that was not billed yet: CONFIG SET maxmemory-policy noeviction, \
                      and the same in redis.conf";
        return wrong("maxmemory-policy", policy, remedy.into());
    }
    if let Some(enabled) = field("aof_enabled").filter(|enabled| *enabled != "1") {
        let remedy = "a restart would empty the outbox and its cursor: CONFIG SET appendonly yes, and the same in redis.conf";
        return wrong(
            "appendonly",
            if enabled == "0" { "no" } else { enabled },
            remedy.into(),
        );
    }
    Ok(warnings)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServerUrl;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nmaxmemory:1000\r\nmaxmemory_policy:noeviction\r\n\
                        # Persistence\r\naof_enabled:1\r\n# Replication\r\nrole:master\r\n# Cluster\r\ncluster_enabled:0\r\n";

    fn checked(changed: &str, to: &str) -> Result<Vec<String>, String> {
        assert!(GOOD.contains(changed));
        let server = Server::new(&ServerUrl::from("redis://u:secret@h")).unwrap();
        check(&server, &GOOD.replace(changed, to)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_value_and_remedy() {
        assert_eq!(checked("role", "role"), Ok(vec![]));
        assert_eq!(checked("7.0.15", "6.2.0"), Ok(vec![]));
        assert_eq!(checked("7.0.15", "10.0"), Ok(vec![]));
        for (changed, to, said) in [
            (
                "7.0.15",
                "6.0.16",
                ["redis_version is 6.0.16", "install a newer Redis"],
            ),
            (
                "cluster_enabled:0",
                "cluster_enabled:1",
                ["cluster_enabled is 1", "not a cluster node"],
            ),
            ("role:master", "role:slave", ["role is slave", "REPLICAOF NO ONE"]),
            (
                "noeviction",
                "allkeys-lru",
                [
                    "maxmemory-policy is allkeys-lru",
                    "CONFIG SET maxmemory-policy noeviction",
                ],
            ),
            (
                "aof_enabled:1",
                "aof_enabled:0",
                ["appendonly is no", "CONFIG SET appendonly yes"],
            ),
        ] {
            let error = checked(changed, to).unwrap_err();
            assert!(said.iter().all(|said| error.contains(said)), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_evicting_policy_without_a_memory_limit_evicts_nothing() {
        let unlimited = "maxmemory:0\r\nmaxmemory_policy:allkeys-lru";
        assert_eq!(
            checked("maxmemory:1000\r\nmaxmemory_policy:noeviction", unlimited),
            Ok(vec![])
        );
    }

    #[test]
    fn what_is_not_told_is_said() {
        let warnings = checked("aof_enabled:1\r\n", "").unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("does not tell aof_enabled"));
    }
}
