//! The one language of connector files: minijinja expressions in an empty environment with a closed list of filters.
//! Everywhere a value is computed an [`Expr`] stands; in the strings of a request a [`Template`] with `${…}` parts does.

mod direct;
mod filters;
mod names;
mod scan;
mod template;

use std::sync::LazyLock;

use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, Expression, UndefinedBehavior, Value};

pub(crate) use filters::is_empty;
pub use names::{Attributes, Names};
pub use template::{Template, Tree};

use direct::Direct;

/// Instructions one evaluation may take. The work inside a filter is not counted by it, hence the caps in the filters.
const FUEL: u64 = 20_000;
const LONGEST_EXPRESSION: usize = 4_000;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_fuel(Some(FUEL));
    filters::install(&mut environment);
    environment
});

/// A compiled expression and where it stands in the file.
pub struct Expr {
    text: String,
    /// Byte offset of its first character in the connector file.
    pub at: usize,
    code: Expression<'static, 'static>,
    /// The same, where it is simple.
    direct: Option<Box<Direct>>,
}

impl std::fmt::Debug for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expr({})", self.text)
    }
}

/// Why an expression was refused or could not be evaluated. Never holds values, only what the expression says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ExprError {
    pub what: String,
    pub hint: Option<String>,
}

impl ExprError {
    pub fn new(what: impl Into<String>) -> ExprError {
        ExprError {
            what: what.into(),
            hint: None,
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> ExprError {
        self.hint = Some(hint.into());
        self
    }
}

impl Expr {
    /// Compiles `text`, which begins at byte `at` of its file, and checks that every name, filter and test is known.
    pub fn compile(text: &str, at: usize, names: &Names) -> Result<Expr, ExprError> {
        if text.trim().is_empty() {
            return Err(ExprError::new("an expression is empty"));
        }
        if text.len() > LONGEST_EXPRESSION {
            return Err(ExprError::new(format!(
                "an expression is longer than {LONGEST_EXPRESSION} bytes"
            )));
        }
        scan::check(text)?;
        let code = ENVIRONMENT
            .compile_expression_owned(text.to_owned())
            .map_err(|error| ExprError::new(format!("`{text}` is not an expression: {}", reason(&error))))?;
        names.check(text, code.undeclared_variables(true))?;
        Ok(Expr {
            text: text.to_owned(),
            at,
            code,
            direct: Direct::of(text).map(Box::new),
        })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn eval(&self, scope: &Value) -> Result<Value, ExprError> {
        match self.direct.as_ref().and_then(|direct| direct.eval(scope)) {
            Some(found) => Ok(found),
            None => self.eval_by_engine(scope),
        }
    }

    fn eval_by_engine(&self, scope: &Value) -> Result<Value, ExprError> {
        self.code
            .eval(scope.clone())
            .map_err(|error| ExprError::new(format!("`{}` failed: {}", self.text, reason(&error))))
    }

    pub fn is_true(&self, scope: &Value) -> Result<bool, ExprError> {
        self.eval(scope).map(|value| value.is_true())
    }

    /// The value as text: numbers and booleans are written out, anything empty is `None`.
    pub fn text_of(&self, scope: &Value) -> Result<Option<String>, ExprError> {
        Ok(to_text(&self.eval(scope)?))
    }

    /// The value as a list of texts; a single text is a list of one, empty parts are left out.
    pub fn texts_of(&self, scope: &Value) -> Result<Vec<String>, ExprError> {
        let value = self.eval(scope)?;
        if value.kind() == ValueKind::Seq || value.kind() == ValueKind::Iterable {
            let items = value.try_iter().map_err(|error| ExprError::new(reason(&error)))?;
            Ok(items
                .take(filters::LONGEST_LIST)
                .filter_map(|item| to_text(&item))
                .collect())
        } else {
            Ok(to_text(&value).into_iter().collect())
        }
    }
}

/// Text of a scalar. Lists and objects have none: a mapping that hits one names a field that is not what it thinks.
pub(crate) fn to_text(value: &Value) -> Option<String> {
    match value.kind() {
        _ if is_empty(value) => None,
        ValueKind::String => value.as_str().map(str::to_owned),
        ValueKind::Number | ValueKind::Bool => Some(value.to_string()),
        _ => None,
    }
}

/// Any serialisable thing as an expression value.
pub(crate) fn value_of<T: serde::Serialize>(data: &T) -> Value {
    Value::from(Serde(data))
}

/// The value as JSON; undefined is null.
pub(crate) fn to_json(value: &Value) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or(serde_json::Value::Null)
}

/// A scope of the given names.
pub(crate) fn scope<'a>(pairs: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::from_pairs(pairs.into_iter().map(|(name, value)| (Value::from(name), value)))
}

fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    }
}
