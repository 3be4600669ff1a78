//! Which queries over a generated table need no SQLite: columns of one table, a range of ids, in the order of ids.

use rusqlite::types::Value as Held;
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr,
    LimitClause, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, TopQuantity, UnaryOperator,
    Value,
};

use super::tables::{Table, find};
use crate::sql::{Variables, function_name, table_name};

/// A query that the generator answers by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) table: &'static Table,
    pub(crate) what: What,
    /// First and last id, both included; empty if the first is above the last.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) descending: bool,
    pub(crate) skip: u64,
    pub(crate) take: u64,
}

/// What a plan gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// Columns by index, under these names.
    Columns(Vec<(usize, String)>),
    /// The number of rows, under this name; bigint if it is COUNT_BIG.
    Count { name: String, big: bool },
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Table {}

/// The plan for a query, if it is one of the simple kind.
pub(crate) fn plan(query: &Query, variables: &Variables) -> Option<Plan> {
    let SetExpr::Select(select) = query.body.as_ref() else {
        return None;
    };
    if query.with.is_some() || query.for_clause.is_some() || !query.locks.is_empty() || !is_plain(select) {
        return None;
    }
    let [from] = select.from.as_slice() else {
        return None;
    };
    let TableFactor::Table { name, args: None, .. } = &from.relation else {
        return None;
    };
    if !from.joins.is_empty() {
        return None;
    }
    let table = find(&table_name(name))?;
    let numbers = Numbers { variables };
    let mut plan = Plan {
        table,
        what: what(select, table)?,
        first: 1,
        last: table.rows,
        descending: false,
        skip: 0,
        take: u64::MAX,
    };
    if let Some(condition) = &select.selection {
        numbers.narrow(condition, &mut plan)?;
    }
    if let Some(order) = &query.order_by {
        let OrderByKind::Expressions(list) = &order.kind else {
            return None;
        };
        let [by] = list.as_slice() else { return None };
        if !is_id(&by.expr) || by.options.nulls_first.is_some() {
            return None;
        }
        plan.descending = matches!(by.options.sort, Some(sqlparser::ast::OrderBySort::Desc));
    }
    if let Some(top) = &select.top {
        if top.percent || top.with_ties {
            return None;
        }
        plan.take = match top.quantity.as_ref()? {
            TopQuantity::Constant(n) => *n,
            TopQuantity::Expr(expr) => u64::try_from(numbers.value(expr)?).ok()?,
        };
    }
    match &query.limit_clause {
        None => {}
        Some(LimitClause::LimitOffset {
            limit: None,
            offset: Some(offset),
            ..
        }) => {
            plan.skip = u64::try_from(numbers.value(&offset.value)?).ok()?;
        }
        Some(_) => return None,
    }
    if let Some(fetch) = &query.fetch {
        plan.take = u64::try_from(numbers.value(fetch.quantity.as_ref()?)?).ok()?;
    }
    let counts = matches!(plan.what, What::Count { .. });
    // TOP and OFFSET of a count are over its one row: rare enough for SQLite.
    if counts && (plan.skip > 0 || plan.take != u64::MAX || query.order_by.is_some()) {
        None
    } else {
        Some(plan)
    }
}

fn is_plain(select: &Select) -> bool {
    let no_groups = matches!(&select.group_by, GroupByExpr::Expressions(list, modifiers) if list.is_empty() && modifiers.is_empty());
    no_groups
        && select.distinct.is_none()
        && select.into.is_none()
        && select.having.is_none()
        && select.prewhere.is_none()
        && select.qualify.is_none()
        && select.named_window.is_empty()
        && select.lateral_views.is_empty()
}

fn what(select: &Select, table: &'static Table) -> Option<What> {
    if let [item] = select.projection.as_slice() {
        let (expr, name) = match item {
            SelectItem::UnnamedExpr(expr) => (Some(expr), String::new()),
            SelectItem::ExprWithAlias { expr, alias } => (Some(expr), alias.value.clone()),
            _ => (None, String::new()),
        };
        if let Some(Expr::Function(function)) = expr {
            return count(function).map(|big| What::Count { name, big });
        }
    }
    let mut columns = Vec::new();
    for item in &select.projection {
        let (expr, alias) = match item {
            SelectItem::Wildcard(_) => {
                columns.extend(
                    table
                        .columns
                        .iter()
                        .enumerate()
                        .map(|(at, c)| (at, c.name.to_owned())),
                );
                continue;
            }
            SelectItem::UnnamedExpr(expr) => (expr, None),
            SelectItem::ExprWithAlias { expr, alias } if !alias.value.starts_with('@') => (expr, Some(alias)),
            _ => return None,
        };
        let name = column_name(expr)?;
        let at = table
            .columns
            .iter()
            .position(|c| c.name.eq_ignore_ascii_case(name))?;
        columns.push((at, alias.map_or_else(|| name.to_owned(), |a| a.value.clone())));
    }
    Some(What::Columns(columns))
}

/// `COUNT(*)` or `COUNT_BIG(*)` with nothing else about it.
fn count(function: &Function) -> Option<bool> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let star = matches!(
        list.args.as_slice(),
        [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]
    );
    let plain =
        star && function.over.is_none() && function.filter.is_none() && list.duplicate_treatment.is_none();
    match function_name(function).as_str() {
        "count" if plain => Some(false),
        "count_big" if plain => Some(true),
        _ => None,
    }
}

fn column_name(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Identifier(ident) if !ident.value.starts_with('@') => Some(&ident.value),
        Expr::CompoundIdentifier(parts) => parts.last().map(|p| p.value.as_str()),
        Expr::Nested(inner) => column_name(inner),
        _ => None,
    }
}

fn is_id(expr: &Expr) -> bool {
    column_name(expr).is_some_and(|name| name.eq_ignore_ascii_case("id"))
}

struct Numbers<'a> {
    variables: &'a Variables,
}

impl Numbers<'_> {
    /// A whole number that stands in the text or in a variable.
    fn value(&self, expr: &Expr) -> Option<i64> {
        match expr {
            Expr::Nested(inner) => self.value(inner),
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } => self.value(expr)?.checked_neg(),
            Expr::Value(value) => match &value.value {
                Value::Number(n, _) => n.parse().ok(),
                _ => None,
            },
            Expr::Identifier(ident) => match self.variables.get(&ident.value.to_lowercase())?.value {
                Held::Integer(n) => Some(n),
                _ => None,
            },
            _ => None,
        }
    }

    /// Narrows the range by a condition; `None` if it is of another kind.
    fn narrow(&self, condition: &Expr, plan: &mut Plan) -> Option<()> {
        match condition {
            Expr::Nested(inner) => self.narrow(inner, plan),
            Expr::BinaryOp {
                left,
                op: BinaryOperator::And,
                right,
            } => {
                self.narrow(left, plan)?;
                self.narrow(right, plan)
            }
            Expr::Between {
                expr,
                negated: false,
                low,
                high,
            } if is_id(expr) => {
                plan.at_least(self.value(low)?);
                plan.at_most(self.value(high)?);
                Some(())
            }
            Expr::BinaryOp { left, op, right } if is_id(left) => plan.bound(op, self.value(right)?),
            Expr::BinaryOp { left, op, right } if is_id(right) => {
                let turned = match op {
                    BinaryOperator::Lt => BinaryOperator::Gt,
                    BinaryOperator::LtEq => BinaryOperator::GtEq,
                    BinaryOperator::Gt => BinaryOperator::Lt,
                    BinaryOperator::GtEq => BinaryOperator::LtEq,
                    other => other.clone(),
                };
                plan.bound(&turned, self.value(left)?)
            }
            _ => None,
        }
    }
}

impl Plan {
    fn at_least(&mut self, id: i64) {
        self.first = self.first.max(u64::try_from(id).unwrap_or(0));
    }

    fn at_most(&mut self, id: i64) {
        self.last = self.last.min(u64::try_from(id).unwrap_or(0));
    }

    fn bound(&mut self, op: &BinaryOperator, id: i64) -> Option<()> {
        match op {
            BinaryOperator::Eq => {
                self.at_least(id);
                self.at_most(id);
            }
            BinaryOperator::Gt => self.at_least(id.saturating_add(1)),
            BinaryOperator::GtEq => self.at_least(id),
            BinaryOperator::Lt => self.at_most(id.saturating_sub(1)),
            BinaryOperator::LtEq => self.at_most(id),
            _ => return None,
        }
        Some(())
    }

    /// Rows of the whole result.
    pub(crate) fn rows(&self) -> u64 {
        let range = (self.last + 1).saturating_sub(self.first.max(1));
        range.saturating_sub(self.skip).min(self.take)
    }
}
