//! The T-SQL type of an expression, as far as its form and the columns it names tell it.

use std::collections::HashMap;

use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, SelectItem,
    SetExpr, UnaryOperator, Value,
};

use super::facts::{Facts, Variables};
use super::types::{Length, SqlType};

/// What an expression can name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) facts: &'a Facts,
    pub(crate) variables: &'a Variables,
    /// Types of the columns of the tables in FROM, by lower-case name.
    pub(crate) columns: &'a HashMap<String, SqlType>,
}

/// Arguments of a call; wildcards are left out.
pub(crate) fn arguments(function: &Function) -> Vec<&Expr> {
    let FunctionArguments::List(list) = &function.args else {
        return Vec::new();
    };
    list.args
        .iter()
        .filter_map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect()
}

/// Last part of a function's name, lower case.
pub(crate) fn function_name(function: &Function) -> String {
    let last = function.name.0.last().and_then(|p| p.as_ident());
    last.map_or_else(String::new, |ident| ident.value.to_lowercase())
}

/// The text of a string or number literal.
pub(crate) fn literal_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) | Value::NationalStringLiteral(s) | Value::Number(s, _) => Some(s),
            _ => None,
        },
        _ => None,
    }
}

impl Scope<'_> {
    /// The type, or `None` where only the values can tell.
    pub(crate) fn kind(&self, expr: &Expr) -> Option<SqlType> {
        match expr {
            Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => self.kind(inner),
            Expr::AtTimeZone { .. } => Some(SqlType::DateTimeOffset(7)),
            Expr::Value(value) => literal(&value.value),
            Expr::Identifier(ident) => self.identifier(ident),
            Expr::CompoundIdentifier(parts) => self.columns.get(&parts.last()?.value.to_lowercase()).copied(),
            Expr::Cast { data_type, .. } => SqlType::from_ast(data_type),
            Expr::Convert {
                data_type: Some(kind),
                ..
            } => SqlType::from_ast(kind),
            Expr::UnaryOp {
                op: UnaryOperator::Minus | UnaryOperator::Plus,
                expr,
            } => self.kind(expr),
            Expr::BinaryOp { left, op, right } => self.operation(left, op, right),
            Expr::Substring { expr, .. } | Expr::Trim { expr, .. } => Some(self.text_like(expr)),
            Expr::Ceil { expr, .. } | Expr::Floor { expr, .. } => self.kind(expr),
            Expr::Case {
                conditions,
                else_result,
                ..
            } => {
                let results = conditions.iter().map(|c| &c.result).chain(else_result.as_deref());
                self.widest(results)
            }
            Expr::Function(function) => self.call(function),
            Expr::Subquery(query) => match query.body.as_ref() {
                SetExpr::Select(select) => match select.projection.first()? {
                    SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => self.kind(expr),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    fn identifier(&self, ident: &Ident) -> Option<SqlType> {
        let name = ident.value.to_lowercase();
        if name.starts_with("@@") {
            return self.facts.global(&name).map(|(_, kind)| kind);
        }
        if name.starts_with('@') {
            return self.variables.get(&name).map(|v| v.kind);
        }
        self.columns.get(&name).copied()
    }

    /// The type that T-SQL gives to a mix: the first text, moment, or the widest number.
    fn widest<'e>(&self, list: impl Iterator<Item = &'e Expr>) -> Option<SqlType> {
        let typed = list.filter(|e| !is_null(e)).filter_map(|e| self.kind(e));
        typed.reduce(|a, b| if rank(b) > rank(a) { b } else { join(a, b) })
    }

    fn operation(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<SqlType> {
        let (a, b) = (self.kind(left), self.kind(right));
        let (a, b) = (a.or(b)?, b.or(a)?);
        match op {
            BinaryOperator::Plus if a.is_text() && b.is_text() => Some(concat(a, b)),
            BinaryOperator::Plus | BinaryOperator::Minus if a.is_moment() => Some(a),
            BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo => Some(arithmetic(a, op, b)),
            BinaryOperator::BitwiseAnd | BinaryOperator::BitwiseOr | BinaryOperator::BitwiseXor => Some(a),
            _ => None,
        }
    }

    fn text_like(&self, expr: &Expr) -> SqlType {
        self.kind(expr).filter(|k| k.is_text()).unwrap_or(SqlType::TEXT)
    }

    fn call(&self, function: &Function) -> Option<SqlType> {
        let name = function_name(function);
        let args = arguments(function);
        let first = || args.first().and_then(|e| self.kind(e));
        let literals: Vec<Option<&str>> = args.iter().map(|e| literal_text(e)).collect();
        if let Some((_, kind)) = self.facts.function(&name, &literals) {
            return Some(kind);
        }
        Some(match name.as_str() {
            "count" | "len" | "datalength" | "charindex" | "patindex" | "datediff" | "datepart" | "year"
            | "month" | "day" | "ascii" | "unicode" | "isnumeric" | "isdate" | "checksum" | "object_id"
            | "grouping" | "sign" | "difference" => SqlType::Int,
            "count_big" | "row_number" | "rank" | "dense_rank" | "ntile" | "datediff_big" => SqlType::BigInt,
            "sum" | "avg" => match first()? {
                SqlType::TinyInt | SqlType::SmallInt | SqlType::Int => SqlType::Int,
                SqlType::Decimal { scale, .. } if name == "sum" => SqlType::Decimal { precision: 38, scale },
                SqlType::Decimal { scale, .. } => SqlType::Decimal {
                    precision: 38,
                    scale: scale.max(6),
                },
                SqlType::Real => SqlType::Float,
                SqlType::SmallMoney => SqlType::Money,
                other => other,
            },
            "isnull" => self.widest(args.into_iter().take(2).filter(|e| !is_null(e)).take(1))?,
            "min" | "max" | "nullif" | "abs" | "round" | "ceiling" | "floor" | "lag" | "lead"
            | "first_value" | "last_value" | "try_cast" => first()?,
            "coalesce" | "greatest" | "least" => self.widest(args.into_iter())?,
            "iif" | "choose" => self.widest(args.into_iter().skip(1))?,
            "dateadd" => args
                .get(2)
                .and_then(|e| self.kind(e))
                .filter(|k| k.is_moment())
                .unwrap_or(SqlType::DateTime),
            "eomonth" | "datefromparts" => SqlType::Date,
            "getdate" | "getutcdate" | "current_timestamp" => SqlType::DateTime,
            "sysdatetime" | "sysutcdatetime" => SqlType::DateTime2(7),
            "sysdatetimeoffset" => SqlType::DateTimeOffset(7),
            "newid" | "newsequentialid" => SqlType::Guid,
            "rand" | "sqrt" | "power" | "exp" | "log" | "log10" | "sin" | "cos" | "tan" | "pi" | "stdev"
            | "var" => SqlType::Float,
            "upper" | "lower" | "ltrim" | "rtrim" | "left" | "right" | "reverse" | "trim" => {
                args.first().map_or(SqlType::TEXT, |e| self.text_like(e))
            }
            "replicate" | "replace" | "stuff" | "string_agg" | "translate" => match first() {
                Some(SqlType::VarChar(Length::Max)) => SqlType::VarChar(Length::Max),
                Some(SqlType::NVarChar(Length::Max)) => SqlType::NVarChar(Length::Max),
                Some(SqlType::VarChar(_) | SqlType::Char(_)) => SqlType::VarChar(Length::Of(8000)),
                _ => SqlType::TEXT,
            },
            "concat" | "concat_ws" | "format" | "datename" | "quotename" | "space" | "nchar" | "char"
            | "str" => SqlType::TEXT,
            "hashbytes" => SqlType::VarBinary(Length::Of(8000)),
            _ => return None,
        })
    }
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(v) if v.value == Value::Null)
}

/// Type of a literal.
fn literal(value: &Value) -> Option<SqlType> {
    let units = |s: &str| u16::try_from(s.encode_utf16().count().max(1)).unwrap_or(u16::MAX);
    Some(match value {
        Value::Number(n, _) => number_literal(n),
        Value::NationalStringLiteral(s) if units(s) <= 4000 => SqlType::NVarChar(Length::Of(units(s))),
        Value::NationalStringLiteral(_) => SqlType::NVarChar(Length::Max),
        Value::SingleQuotedString(s) if units(s) <= 8000 => SqlType::VarChar(Length::Of(units(s))),
        Value::SingleQuotedString(_) => SqlType::VarChar(Length::Max),
        Value::HexStringLiteral(s) if s.len() <= 16_000 => SqlType::VarBinary(Length::Of(
            u16::try_from(s.len().div_ceil(2).max(1)).unwrap_or(8000),
        )),
        Value::HexStringLiteral(_) => SqlType::VarBinary(Length::Max),
        Value::Null => SqlType::Int,
        Value::Placeholder(text) if text.starts_with('$') => SqlType::Money,
        _ => return None,
    })
}

fn number_literal(text: &str) -> SqlType {
    if text.contains(['e', 'E']) {
        return SqlType::Float;
    }
    if text.parse::<i32>().is_ok() {
        return SqlType::Int;
    }
    let digits = |s: &str| u8::try_from(s.bytes().filter(u8::is_ascii_digit).count().min(38)).unwrap_or(38);
    let scale = text.split_once('.').map_or(0, |(_, fraction)| digits(fraction));
    SqlType::Decimal {
        precision: digits(text.trim_start_matches('0')).max(scale).max(1),
        scale,
    }
}

/// Higher wins in a mix.
fn rank(kind: SqlType) -> u8 {
    match kind {
        SqlType::Bit => 1,
        SqlType::TinyInt => 2,
        SqlType::SmallInt => 3,
        SqlType::Int => 4,
        SqlType::BigInt => 5,
        SqlType::SmallMoney => 6,
        SqlType::Money => 7,
        SqlType::Decimal { .. } => 8,
        SqlType::Real => 9,
        SqlType::Float => 10,
        kind if kind.is_moment() => 11,
        _ => 0,
    }
}

fn join(a: SqlType, b: SqlType) -> SqlType {
    match (a, b) {
        (SqlType::NVarChar(x), SqlType::NVarChar(y)) => SqlType::NVarChar(longer(x, y)),
        (SqlType::VarChar(x), SqlType::VarChar(y)) => SqlType::VarChar(longer(x, y)),
        (SqlType::NVarChar(x), SqlType::VarChar(y)) | (SqlType::VarChar(x), SqlType::NVarChar(y)) => {
            SqlType::NVarChar(longer(x, y))
        }
        (
            SqlType::Decimal {
                precision: p,
                scale: s,
            },
            SqlType::Decimal {
                precision: q,
                scale: t,
            },
        ) => {
            let scale = s.max(t);
            SqlType::Decimal {
                precision: ((p - s).max(q - t) + scale).min(38),
                scale,
            }
        }
        (a, _) => a,
    }
}

fn longer(a: Length, b: Length) -> Length {
    match (a, b) {
        (Length::Of(x), Length::Of(y)) => Length::Of(x.max(y)),
        _ => Length::Max,
    }
}

fn concat(a: SqlType, b: SqlType) -> SqlType {
    let length = |k| match k {
        SqlType::NVarChar(l) | SqlType::VarChar(l) => l,
        SqlType::NChar(n) | SqlType::Char(n) => Length::Of(n),
        _ => Length::Max,
    };
    let wide = matches!(a, SqlType::NVarChar(_) | SqlType::NChar(_))
        || matches!(b, SqlType::NVarChar(_) | SqlType::NChar(_));
    let most: u16 = if wide { 4000 } else { 8000 };
    let total = match (length(a), length(b)) {
        (Length::Of(x), Length::Of(y)) => Length::Of(x.saturating_add(y).min(most)),
        _ => Length::Max,
    };
    if wide {
        SqlType::NVarChar(total)
    } else {
        SqlType::VarChar(total)
    }
}

/// T-SQL's rules for precision and scale, cut to 38.
fn arithmetic(a: SqlType, op: &BinaryOperator, b: SqlType) -> SqlType {
    let wide = if rank(a) >= rank(b) { a } else { b };
    if rank(wide) == 0 {
        return SqlType::Int;
    }
    let SqlType::Decimal { .. } = wide else {
        return wide;
    };
    let parts = |kind| match kind {
        SqlType::Decimal { precision, scale } => (i32::from(precision), i32::from(scale)),
        SqlType::BigInt => (19, 0),
        SqlType::SmallInt => (5, 0),
        SqlType::TinyInt | SqlType::Bit => (3, 0),
        SqlType::Money | SqlType::SmallMoney => (19, 4),
        _ => (10, 0),
    };
    let ((p, s), (q, t)) = (parts(a), parts(b));
    let (precision, scale) = match op {
        BinaryOperator::Multiply => (p + q + 1, s + t),
        BinaryOperator::Divide => {
            let scale = (s + q + 1).max(6);
            (p - s + t + scale, scale)
        }
        _ => ((p - s).max(q - t) + s.max(t) + 1, s.max(t)),
    };
    let over = (precision - 38).max(0);
    let scale = if over > 0 {
        (scale - over).max(scale.min(6))
    } else {
        scale
    };
    let clamp = |n: i32| u8::try_from(n.clamp(0, 38)).unwrap_or(38);
    SqlType::Decimal {
        precision: clamp(precision.max(1)),
        scale: clamp(scale),
    }
}
