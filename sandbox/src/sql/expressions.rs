//! Small expressions put together by hand.

use rusqlite::types::Value as Held;
use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, Value,
};

/// An identifier in brackets, so that no word of SQLite's grammar is taken for anything else.
pub(super) fn bracketed(name: &str) -> Ident {
    // SQLite has no escape inside brackets; double quotes have one.
    if name.contains(']') {
        Ident::with_quote('"', name)
    } else {
        Ident::with_quote('[', name)
    }
}

/// A number literal.
pub(super) fn number(text: &str) -> Expr {
    Expr::value(Value::Number(text.to_owned(), false))
}

pub(super) fn string(text: &str) -> Expr {
    Expr::value(Value::SingleQuotedString(text.replace('\'', "''")))
}

pub(super) fn hex(digits: &str) -> Expr {
    Expr::value(Value::HexStringLiteral(digits.to_owned()))
}

pub(super) fn null() -> Expr {
    Expr::value(Value::Null)
}

pub(super) fn constant(value: &Held) -> Expr {
    match value {
        Held::Null => null(),
        Held::Integer(n) if *n < 0 => Expr::Nested(Box::new(number(&n.to_string()))),
        Held::Integer(n) => number(&n.to_string()),
        Held::Real(f) => number(&format!("{f:?}")),
        Held::Text(s) => string(s),
        Held::Blob(b) => hex(&b.iter().map(|b| format!("{b:02X}")).collect::<String>()),
    }
}

pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args
        .into_iter()
        .map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e)))
        .collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
