//! Scripts from files: TOML or JSON, captured replies by name, and a whole directory of golden vectors as one script.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::{Known, LoginScript, Rule, Scenario, Step, When};

/// A script's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is not a script, or not a vector.
    #[error("{path} cannot be used: {what}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl Scenario {
    /// Reads a script, JSON by its file name, else TOML; captured replies are read from beside it.
    ///
    /// # Errors
    /// A file that cannot be read, or is no script.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = read(path)?;
        let content = |what: String| LoadError::Content {
            path: path.to_owned(),
            what,
        };
        let mut scenario: Self = if path.extension().is_some_and(|e| e == "json") {
            serde_json::from_str(&text).map_err(|e| content(e.to_string()))?
        } else {
            toml::from_str(&text).map_err(|e| content(e.to_string()))?
        };
        let directory = path.parent().unwrap_or(Path::new("."));
        for rule in &mut scenario.rules {
            captured(&mut rule.steps, directory)?;
        }
        captured(&mut scenario.otherwise, directory)?;
        Ok(scenario)
    }

    /// A rule for every token stream among the vectors of a directory that a server of this version (`7.1`, `7.2`, `7.4`)
    /// could send as a whole response: a batch whose text is the vector's name is answered by its bytes.
    ///
    /// # Errors
    /// A file that cannot be read, or is no vector.
    pub fn from_vectors(directory: &Path, version: &str) -> Result<Self, LoadError> {
        let listed = fs::read_dir(directory).map_err(|source| LoadError::Read {
            path: directory.to_owned(),
            source,
        })?;
        let mut files: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        let wanted = format!("0x{}", version.replace('.', ""));
        let mut scenario = Self::new().login(LoginScript {
            version: Some(version.to_owned()),
            ..LoginScript::default()
        });
        for file in files
            .iter()
            .filter(|f| f.extension().is_some_and(|e| e == "json"))
        {
            let vector = vector(file)?;
            let field = |name: &str| vector.get(name).and_then(Json::as_str).unwrap_or_default();
            let names = token_names(&vector);
            let whole = names.last().is_some_and(|last| last.starts_with("DONE"))
                && vector.get("column_metadata_given").is_none();
            if field("direction") != "server_to_client"
                || field("layer") != "token-stream"
                || field("tds_version") != wanted
                || !whole
            {
                continue;
            }
            let count = |wanted: &[&str]| names.iter().filter(|n| wanted.contains(n)).count() as u64;
            scenario = scenario.rule(Rule {
                when: When {
                    text_is: Some(field("name").to_owned()),
                    ..When::default()
                },
                steps: vec![Step::Hex(field("bytes_hex").to_owned())],
                known: Some(Known {
                    rows: count(&["ROW", "NBCROW", "ALTROW"]),
                    result_sets: count(&["COLMETADATA"]),
                    errors: count(&["ERROR"]),
                }),
                ..Rule::default()
            });
        }
        Ok(scenario)
    }
}

fn read(path: &Path) -> Result<String, LoadError> {
    fs::read_to_string(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })
}

fn vector(path: &Path) -> Result<Json, LoadError> {
    serde_json::from_str(&read(path)?).map_err(|e| LoadError::Content {
        path: path.to_owned(),
        what: e.to_string(),
    })
}

fn token_names(vector: &Json) -> Vec<&str> {
    let tokens = vector.pointer("/expected/tokens").and_then(Json::as_array);
    tokens
        .into_iter()
        .flatten()
        // COLMETADATA of count 0xFFFF begins no result set.
        .filter(|token| token.get("count").and_then(Json::as_u64) != Some(0xFFFF))
        .filter_map(|token| token.get("token")?.as_str())
        .collect()
}

/// Puts the bytes in the place of captured replies' names.
fn captured(steps: &mut [Step], directory: &Path) -> Result<(), LoadError> {
    for step in steps {
        match step {
            Step::Captured(file) => {
                let path = directory.join(&*file);
                let vector = vector(&path)?;
                let hex = vector.get("bytes_hex").and_then(Json::as_str).map(str::to_owned);
                let layer = vector.get("layer").and_then(Json::as_str).unwrap_or_default();
                let content = |what: &str| LoadError::Content {
                    path: path.clone(),
                    what: what.to_owned(),
                };
                let hex = hex.ok_or_else(|| content("it has no bytes_hex"))?;
                *step = match layer {
                    "token-stream" => Step::Hex(hex),
                    "tds-packets" => Step::RawPackets(hex),
                    _ => return Err(content("it is neither a token stream nor packets")),
                };
            }
            Step::Repeat { steps, .. } => captured(steps, directory)?,
            _ => {}
        }
    }
    Ok(())
}
