//! What the generated tables look like, and the value of any cell.

use rusqlite::types::Value as Held;

use crate::sql::{Column, DAY_1900, Moment, SqlType, print_guid};

/// Rows after which the values begin again, but for the columns that follow the id itself.
pub(crate) const CYCLE: u64 = 4096;
/// Ticks of 100 ns in a second.
const SECOND: i64 = 10_000_000;
/// 2020-01-01 in days since 1900-01-01.
const DAY_2020: i64 = DAY_1900 + 43_829;

/// How a column comes about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Maker {
    /// The row's id, an int.
    Id,
    /// A tenth of the row's id, a bigint.
    Tenth,
    /// From a number that is well mixed and the same for every [`CYCLE`]th row.
    Mixed(fn(u64) -> Held),
}

/// A column of a generated table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    pub(crate) name: &'static str,
    pub(crate) declared: &'static str,
    pub(crate) nullable: bool,
    pub(crate) maker: Maker,
}

/// A generated table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// Ids are 1 to this.
    pub(crate) rows: u64,
    pub(crate) columns: &'static [Made],
}

const fn made(name: &'static str, declared: &'static str, maker: fn(u64) -> Held) -> Made {
    Made {
        name,
        declared,
        nullable: false,
        maker: Maker::Mixed(maker),
    }
}

const fn null(name: &'static str, declared: &'static str, maker: fn(u64) -> Held) -> Made {
    Made {
        name,
        declared,
        nullable: true,
        maker: Maker::Mixed(maker),
    }
}

const fn id() -> Made {
    Made {
        name: "id",
        declared: "int",
        nullable: false,
        maker: Maker::Id,
    }
}

/// All of them.
pub(crate) static TABLES: [Table; 2] = [
    Table {
        name: "orders",
        rows: 100_000,
        columns: &[
            id(),
            made("customer", "nvarchar(40)", |n| {
                text(format!("{} {}", pick(&FIRST, n), pick(&LAST, n >> 8)))
            }),
            made("status", "varchar(12)", |n| {
                text(pick(&STATUS, n >> 16).to_owned())
            }),
            made("quantity", "int", |n| Held::Integer((n % 40) as i64 + 1)),
            made("amount", "decimal(12,2)", |n| hundredths(n % 1_000_000)),
            made("created_at", "datetime2(3)", |n| text(moment(n).text(3))),
            null("note", "nvarchar(100)", |n| {
                some(!n.is_multiple_of(3), || text(sentence(n, 8)))
            }),
        ],
    },
    Table {
        name: "events",
        rows: 1_000_000,
        columns: &[
            id(),
            Made {
                name: "order_id",
                declared: "bigint",
                nullable: false,
                maker: Maker::Tenth,
            },
            made("kind", "smallint", |n| Held::Integer((n % 1000) as i64 - 500)),
            made("level", "tinyint", |n| Held::Integer((n >> 3 & 0xFF) as i64)),
            made("flag", "bit", |n| Held::Integer((n >> 7 & 1) as i64)),
            null("amount", "decimal(18,4)", |n| {
                some(!n.is_multiple_of(7), || ten_thousandths(n % 10_000_000_000))
            }),
            made("price", "money", |n| ten_thousandths(n >> 9 & 0xFFF_FFFF)),
            made("ratio", "float", |n| Held::Real((n & 0xF_FFFF) as f64 / 1024.0)),
            null("score", "real", |n| {
                some(!n.is_multiple_of(5), || {
                    Held::Real(f64::from((n & 0xFFFF) as f32 / 64.0))
                })
            }),
            made("day", "date", |n| text(moment(n).date_text())),
            made("at_time", "time(7)", |n| text(moment(n).time_text(7))),
            made("created_at", "datetime2(7)", |n| text(moment(n).text(7))),
            null("occurred", "datetimeoffset(3)", |n| {
                let offset = ((n % 9) as i16 - 4) * 60;
                some(!n.is_multiple_of(11), || {
                    text(Moment { offset, ..moment(n) }.offset_text(3))
                })
            }),
            made("updated", "datetime", |n| {
                text(
                    Moment {
                        ticks: moment(n).ticks / 100_000 * 100_000,
                        ..moment(n)
                    }
                    .text(3),
                )
            }),
            made("token", "uniqueidentifier", |n| {
                text(print_guid(
                    (u128::from(n) << 64 | u128::from(mix(n))).to_be_bytes(),
                ))
            }),
            made("name", "nvarchar(50)", |n| {
                text(format!("{} {}", pick(&FIRST, n), pick(&LAST, n >> 8)))
            }),
            made("source", "varchar(50)", |n| {
                text(format!("host-{:04}.example.net", n % 5000))
            }),
            made("payload", "varbinary(64)", |n| {
                Held::Blob((0..8).flat_map(|i| mix(n + i).to_le_bytes()).collect())
            }),
            null("note", "nvarchar(100)", |n| {
                some(!n.is_multiple_of(4), || text(sentence(n, 6)))
            }),
        ],
    },
];

const FIRST: [&str; 16] = [
    "Ada", "Björn", "Chloé", "Dmitri", "Elif", "Fatima", "Grace", "Håkon", "Ines", "Jürgen", "Keiko",
    "Łukasz", "Mei", "Noël", "Olga", "Zoë",
];
const LAST: [&str; 16] = [
    "Lovelace",
    "Ångström",
    "Curie",
    "Mendeleev",
    "Yılmaz",
    "al-Fihri",
    "Hopper",
    "Abel",
    "Perón",
    "Groß",
    "Yonezawa",
    "Skłodowski",
    "Wang",
    "Poincaré",
    "Tausky",
    "Noether",
];
const STATUS: [&str; 5] = ["new", "paid", "shipped", "delivered", "returned"];
const WORDS: [&str; 12] = [
    "river", "weir", "gauge", "spillway", "lock", "sluice", "current", "eddy", "bank", "ford", "brook",
    "delta",
];

/// The generated table of a name.
pub(crate) fn find(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|t| t.name.eq_ignore_ascii_case(name))
}

impl Made {
    /// The cell of this column in the row `id`.
    pub(crate) fn value(&self, id: u64) -> Held {
        match self.maker {
            Maker::Id => Held::Integer(id as i64),
            Maker::Tenth => Held::Integer((id / 10) as i64),
            Maker::Mixed(make) => make(mix(id % CYCLE)),
        }
    }

    /// As a result's column under a name of the query's choice.
    pub(crate) fn column(&self, name: &str) -> Column {
        let kind = SqlType::from_declared(self.declared).unwrap_or(SqlType::TEXT);
        Column {
            name: name.to_owned(),
            kind,
            nullable: self.nullable,
            identity: false,
        }
    }
}

/// SplitMix64's finisher: neighbours get unlike numbers, for ever the same ones.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

fn text(text: String) -> Held {
    Held::Text(text)
}

fn some(there: bool, value: impl FnOnce() -> Held) -> Held {
    if there { value() } else { Held::Null }
}

fn pick<'a>(list: &[&'a str], n: u64) -> &'a str {
    let at = usize::try_from(n % list.len().max(1) as u64).unwrap_or(0);
    list.get(at).copied().unwrap_or_default()
}

fn hundredths(n: u64) -> Held {
    Held::Real(format!("{}.{:02}", n / 100, n % 100).parse().unwrap_or_default())
}

fn ten_thousandths(n: u64) -> Held {
    Held::Real(
        format!("{}.{:04}", n / 10_000, n % 10_000)
            .parse()
            .unwrap_or_default(),
    )
}

/// Some moment of the years from 2020 to 2023.
fn moment(n: u64) -> Moment {
    Moment {
        day: DAY_2020 + (n % 1461) as i64,
        ticks: (n >> 11) as i64 % (86_400 * SECOND),
        offset: 0,
    }
}

fn sentence(n: u64, words: u32) -> String {
    let chosen: Vec<&str> = (0..words).map(|i| pick(&WORDS, n >> (i * 4))).collect();
    chosen.join(" ")
}
