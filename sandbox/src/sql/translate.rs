//! T-SQL's tree rewritten into the tree that SQLite's dialect prints: names, TOP, functions, operators, casts.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, CastKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, LimitClause, ObjectName, ObjectNamePart, Offset, OffsetRows, Query, Select,
    SelectItem, SetExpr, TableFactor, TopQuantity, Value, VisitMut, VisitorMut,
};

use sqlparser::dialect::SQLiteDialect;
use sqlparser::parser::Parser;

use super::expressions::{bracketed, call, constant, hex, null, number, string};
use super::infer::{Scope, arguments, function_name, literal_text};
use super::types::SqlType;
use crate::tokens::Message;

/// Schemas whose names are part of the name of one of our views.
const CATALOGUE_SCHEMAS: [&str; 2] = ["sys", "information_schema"];

/// Rewrites `node` in place.
///
/// # Errors
/// Something that SQLite has no match for, told as a server would tell it.
pub(crate) fn translate<N: VisitMut>(node: &mut N, scope: Scope<'_>) -> Result<(), Message> {
    let mut rewriter = Rewriter { scope };
    match node.visit(&mut rewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(message) => Err(message),
    }
}

/// The name of a table in SQLite: its last part; catalogue views keep their schema.
pub(crate) fn table_name(name: &ObjectName) -> String {
    let parts: Vec<&str> = name
        .0
        .iter()
        .filter_map(|p| p.as_ident())
        .map(|i| i.value.as_str())
        .collect();
    match parts.as_slice() {
        [.., schema, table] if CATALOGUE_SCHEMAS.iter().any(|s| schema.eq_ignore_ascii_case(s)) => {
            format!("{schema}.{table}").to_lowercase()
        }
        [.., table] => (*table).to_owned(),
        [] => String::new(),
    }
}

struct Rewriter<'a> {
    scope: Scope<'a>,
}

type Done = ControlFlow<Message>;

fn unsupported(what: &str) -> Done {
    ControlFlow::Break(Message::error(
        50000,
        format!("The sandbox does not support {what}."),
    ))
}

impl VisitorMut for Rewriter<'_> {
    type Break = Message;

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> Done {
        *relation = ObjectName(vec![ObjectNamePart::Identifier(bracketed(&table_name(relation)))]);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Done {
        match factor {
            TableFactor::Table {
                with_hints, alias, ..
            } => {
                with_hints.clear();
                if let Some(alias) = alias {
                    alias.name = bracketed(&alias.name.value);
                }
            }
            TableFactor::Derived {
                alias: Some(alias), ..
            } => alias.name = bracketed(&alias.name.value),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> Done {
        if let Some(clause) = &query.for_clause {
            if clause.to_string().to_uppercase().contains("BROWSE") {
                query.for_clause = None;
            } else {
                return unsupported("FOR XML and FOR JSON");
            }
        }
        if let SetExpr::Select(select) = query.body.as_mut()
            && let Some(top) = select.top.take()
        {
            if top.percent || top.with_ties {
                return unsupported("TOP with PERCENT or WITH TIES");
            }
            let limit = match top.quantity {
                Some(TopQuantity::Expr(expr)) => expr,
                Some(TopQuantity::Constant(n)) => number(&n.to_string()),
                None => number("0"),
            };
            query.limit_clause = Some(LimitClause::LimitOffset {
                limit: Some(limit),
                offset: None,
                limit_by: Vec::new(),
            });
        }
        let fetch = query.fetch.take().and_then(|f| f.quantity);
        if let Some(LimitClause::LimitOffset {
            limit,
            offset: Some(offset),
            ..
        }) = &mut query.limit_clause
        {
            offset.rows = OffsetRows::None;
            *limit = Some(fetch.unwrap_or_else(|| number("-1")));
        } else if let Some(limit) = fetch {
            let offset = Some(Offset {
                value: number("0"),
                rows: OffsetRows::None,
            });
            query.limit_clause = Some(LimitClause::LimitOffset {
                limit: Some(limit),
                offset,
                limit_by: Vec::new(),
            });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Done {
        for item in &mut select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                *alias = bracketed(&alias.value);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Done {
        // The date part of DATEADD and its like is a bare word, not a column.
        if let Expr::Function(function) = expr
            && matches!(
                function_name(function).as_str(),
                "dateadd" | "datediff" | "datediff_big" | "datepart" | "datename" | "datetrunc"
            )
            && let FunctionArguments::List(list) = &mut function.args
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(part))) = list.args.first_mut()
            && let Expr::Identifier(word) = part
        {
            *part = string(&word.value.to_lowercase());
        }
        if let Expr::BinaryOp { left, op, right } = expr
            && let Some(replaced) = self.operator(left, op, right)
        {
            *expr = replaced;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Done {
        match expr {
            Expr::Identifier(ident) => {
                let ident = ident.clone();
                return self.identifier(&ident, expr);
            }
            Expr::CompoundIdentifier(parts) => {
                let keep = parts.len().saturating_sub(2);
                parts.drain(..keep);
                parts.iter_mut().for_each(|p| *p = bracketed(&p.value));
            }
            Expr::Value(value) => match &value.value {
                // The printer takes two adjacent quotes for one that is escaped already.
                Value::NationalStringLiteral(s) => *expr = string(s),
                Value::SingleQuotedString(s) if s.contains('\'') => *expr = string(s),
                Value::HexStringLiteral(s) if s.len() % 2 == 1 => *expr = hex(&format!("0{s}")),
                Value::Placeholder(s) if s.starts_with('$') => *expr = number(s.trim_start_matches('$')),
                _ => {}
            },
            Expr::Collate { expr: inner, .. } | Expr::AtTimeZone { timestamp: inner, .. } => {
                let inner = std::mem::replace(inner.as_mut(), null());
                *expr = inner;
            }
            Expr::Cast { .. } | Expr::Convert { .. } => return cast(expr),
            Expr::Substring {
                expr: text,
                substring_from,
                substring_for,
                ..
            } => {
                let mut args = vec![std::mem::replace(text.as_mut(), null())];
                args.extend(
                    [substring_from.take(), substring_for.take()]
                        .into_iter()
                        .flatten()
                        .map(|e| *e),
                );
                *expr = call("substr", args);
            }
            Expr::Function(function) => return self.function(function.clone(), expr),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Rewriter<'_> {
    fn identifier(&self, ident: &Ident, expr: &mut Expr) -> Done {
        let name = ident.value.to_lowercase();
        if name.starts_with("@@") {
            let Some((value, _)) = self.scope.facts.global(&name) else {
                return ControlFlow::Break(Message::new(
                    137,
                    15,
                    2,
                    format!("Must declare the scalar variable \"{}\".", ident.value),
                ));
            };
            *expr = constant(&value);
        } else if name.starts_with('@') {
            if !self.scope.variables.contains_key(&name) {
                return ControlFlow::Break(Message::new(
                    137,
                    15,
                    2,
                    format!("Must declare the scalar variable \"{}\".", ident.value),
                ));
            }
            *expr = Expr::Identifier(Ident::new(name));
        } else {
            *expr = Expr::Identifier(bracketed(&ident.value));
        }
        ControlFlow::Continue(())
    }

    /// `+` on text, and the operators that SQLite answers with NULL where T-SQL answers with an error.
    fn operator(&self, left: &mut Expr, op: &BinaryOperator, right: &mut Expr) -> Option<Expr> {
        let (a, b) = (self.scope.kind(left), self.scope.kind(right));
        let number = |k: Option<SqlType>| k.is_some_and(SqlType::is_number);
        let fraction = |k: Option<SqlType>| k.is_some_and(|k| k.is_number() && !k.is_integer());
        let mut take = || vec![std::mem::replace(left, null()), std::mem::replace(right, null())];
        match op {
            BinaryOperator::Plus if number(a) && number(b) => None,
            BinaryOperator::Plus => Some(call("tsql_add", take())),
            BinaryOperator::Divide if fraction(a) || fraction(b) => Some(call("tsql_divide_exact", take())),
            BinaryOperator::Divide => Some(call("tsql_divide", take())),
            BinaryOperator::Modulo => Some(call("tsql_modulo", take())),
            BinaryOperator::BitwiseXor => Some(call("tsql_xor", take())),
            _ => None,
        }
    }

    fn function(&self, mut function: Function, expr: &mut Expr) -> Done {
        let name = function_name(&function);
        let args = arguments(&function);
        let literals: Vec<Option<&str>> = args.iter().map(|e| literal_text(e)).collect();
        if let Some((value, _)) = self.scope.facts.function(&name, &literals) {
            *expr = constant(&value);
            return ControlFlow::Continue(());
        }
        if name == "object_id" {
            *expr = args.first().map_or_else(null, |name| object_id(name));
            return ControlFlow::Continue(());
        }
        let integer_average = name == "avg"
            && arguments(&function)
                .first()
                .and_then(|e| self.scope.kind(e))
                .is_some_and(SqlType::is_integer);
        if let Some(ours) = sqlite_name(&name) {
            function.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(ours))]);
        } else {
            function.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]);
        }
        function.within_group.clear();
        if let FunctionArguments::None = function.args {
            function.args = FunctionArguments::List(FunctionArgumentList {
                duplicate_treatment: None,
                args: Vec::new(),
                clauses: Vec::new(),
            });
        }
        *expr = Expr::Function(function);
        if integer_average {
            let average = std::mem::replace(expr, null());
            *expr = call("tsql_cast", vec![average, string("bigint"), number("0")]);
        }
        ControlFlow::Continue(())
    }
}

/// Built-in functions under the name that SQLite, or `functions`, has them.
fn sqlite_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "isnull" => "ifnull",
        "count_big" => "count",
        "len" => "tsql_len",
        "datalength" => "tsql_datalength",
        "charindex" => "tsql_charindex",
        "left" => "tsql_left",
        "right" => "tsql_right",
        "string_agg" => "group_concat",
        "ceiling" => "ceil",
        "char" | "nchar" => "char",
        "log" => "ln",
        "getdate" | "current_timestamp" | "getutcdate" => "tsql_now3",
        "sysdatetime" | "sysutcdatetime" => "tsql_now7",
        "sysdatetimeoffset" => "tsql_now_offset",
        "newid" | "newsequentialid" => "tsql_newid",
        "substring" => "substr",
        "round" => "tsql_round",
        "rand" => "tsql_rand",
        "json_value" | "json_query" => "json_extract",
        "isjson" => "json_valid",
        _ => return None,
    })
}

/// A subquery that finds a table or view by the last part of its name.
fn object_id(name: &Expr) -> Expr {
    let text = format!(
        "(SELECT object_id FROM [sys.objects] WHERE lower(name) = tsql_last_part({name}) \
         UNION ALL SELECT -1000 - rowid FROM sqlite_temp_master WHERE type = 'table' AND lower(name) = tsql_last_part({name}))"
    );
    let parser = Parser::new(&SQLiteDialect {}).try_with_sql(&text);
    parser.and_then(|mut p| p.parse_expr()).unwrap_or_else(|_| null())
}

fn cast(expr: &mut Expr) -> Done {
    let (inner, kind, lenient, style) = match expr {
        Expr::Cast {
            expr: inner,
            data_type,
            kind,
            ..
        } => (inner, data_type.clone(), *kind == CastKind::TryCast, None),
        Expr::Convert {
            expr: inner,
            data_type: Some(data_type),
            is_try,
            styles,
            ..
        } => (inner, data_type.clone(), *is_try, styles.first().cloned()),
        _ => return ControlFlow::Continue(()),
    };
    let Some(target) = SqlType::from_ast(&kind) else {
        return ControlFlow::Break(Message::new(
            243,
            16,
            1,
            format!("Type {kind} is not a defined system type."),
        ));
    };
    let inner = std::mem::replace(inner.as_mut(), null());
    let name = if lenient { "tsql_try_cast" } else { "tsql_cast" };
    *expr = call(
        name,
        vec![
            inner,
            string(&target.declared()),
            style.unwrap_or_else(|| number("0")),
        ],
    );
    ControlFlow::Continue(())
}
