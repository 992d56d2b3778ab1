//! As much of SOQL as a sane connector sends: `SELECT fields FROM object WHERE a AND b ORDER BY f LIMIT n OFFSET n`, with
//! the errors of quoting that Salesforce makes.

use crate::api::ApiError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub fields: Vec<String>,
    pub object: String,
    pub conditions: Vec<Condition>,
    /// Field and whether it descends.
    pub order: Vec<(String, bool)>,
    pub limit: Option<usize>,
    pub offset: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub field: String,
    /// `=`, `!=`, `<`, `<=`, `>`, `>=` or `IN`.
    pub operator: String,
    pub values: Vec<Literal>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Literal {
    Text(String),
    /// A number, a date, `true` or `null`.
    Bare(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(String),
}

fn malformed(message: impl Into<String>) -> ApiError {
    ApiError::new(400, "MALFORMED_QUERY", message)
}

fn tokens(text: &str) -> Result<Vec<Token>, ApiError> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&first) = chars.peek() {
        match first {
            c if c.is_whitespace() => {
                chars.next();
            }
            '\'' => {
                chars.next();
                tokens.push(Token::Text(quoted(&mut chars)?));
            }
            ',' | '(' | ')' => {
                chars.next();
                tokens.push(Token::Sign(first.to_string()));
            }
            '<' | '>' | '=' | '!' => {
                chars.next();
                let mut sign = first.to_string();
                sign.extend(chars.next_if_eq(&'='));
                tokens.push(Token::Sign(sign));
            }
            c if c.is_alphanumeric() || "_.-+:".contains(c) => {
                let mut word = String::new();
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || "_.-+:".contains(*c)) {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
            other => return Err(malformed(format!("unexpected token: '{other}'"))),
        }
    }
    Ok(tokens)
}

fn quoted(chars: &mut impl Iterator<Item = char>) -> Result<String, ApiError> {
    let mut text = String::new();
    loop {
        match chars.next() {
            None => return Err(malformed("a text is not closed")),
            Some('\'') => return Ok(text),
            Some('\\') => match chars.next() {
                Some(c @ ('\'' | '"' | '\\')) => text.push(c),
                Some('n') => text.push('\n'),
                _ => return Err(malformed("illegal character sequence in a text")),
            },
            Some(c) => text.push(c),
        }
    }
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Parser {
    fn word(&mut self) -> Result<String, ApiError> {
        match self.tokens.next() {
            Some(Token::Word(word)) => Ok(word),
            other => Err(malformed(format!("unexpected token: {}", shown(other.as_ref())))),
        }
    }

    fn keyword(&mut self, keyword: &str) -> Result<(), ApiError> {
        if self.takes(keyword) {
            return Ok(());
        }
        Err(malformed(format!("unexpected token: {}", shown(self.tokens.peek()))))
    }

    fn takes(&mut self, keyword: &str) -> bool {
        let is = |token: &Token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        self.tokens.next_if(is).is_some()
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.tokens
            .next_if(|token| matches!(token, Token::Sign(found) if found == sign))
            .is_some()
    }

    fn number(&mut self) -> Result<usize, ApiError> {
        let word = self.word()?;
        word.parse().map_err(|_| malformed(format!("unexpected token: {word}")))
    }

    fn literal(&mut self) -> Result<Literal, ApiError> {
        match self.tokens.next() {
            Some(Token::Text(text)) => Ok(Literal::Text(text)),
            Some(Token::Word(word)) => Ok(Literal::Bare(word)),
            other => Err(malformed(format!("unexpected token: {}", shown(other.as_ref())))),
        }
    }

    fn condition(&mut self) -> Result<Condition, ApiError> {
        let field = self.word()?;
        if self.takes("IN") {
            let mut values = Vec::new();
            if !self.sign("(") {
                return Err(malformed("expecting a left parenthesis"));
            }
            loop {
                values.push(self.literal()?);
                if self.sign(")") {
                    break;
                }
                if !self.sign(",") {
                    return Err(malformed("expecting a right parenthesis"));
                }
            }
            return Ok(Condition {
                field,
                operator: "IN".to_owned(),
                values,
            });
        }
        match self.tokens.next() {
            Some(Token::Sign(operator)) if !matches!(operator.as_str(), "," | "(" | ")" | "!") => Ok(Condition {
                field,
                operator,
                values: vec![self.literal()?],
            }),
            other => Err(malformed(format!("unexpected token: {}", shown(other.as_ref())))),
        }
    }
}

fn shown(token: Option<&Token>) -> String {
    match token {
        None => "<EOF>".to_owned(),
        Some(Token::Word(text) | Token::Sign(text)) => format!("'{text}'"),
        Some(Token::Text(text)) => format!("'{text}' in quotes"),
    }
}

pub(crate) fn parse(text: &str) -> Result<Query, ApiError> {
    let mut parser = Parser {
        tokens: tokens(text)?.into_iter().peekable(),
    };
    parser.keyword("SELECT")?;
    let mut fields = vec![parser.word()?];
    while parser.sign(",") {
        fields.push(parser.word()?);
    }
    parser.keyword("FROM")?;
    let mut query = Query {
        fields,
        object: parser.word()?,
        conditions: Vec::new(),
        order: Vec::new(),
        limit: None,
        offset: 0,
    };
    if parser.takes("WHERE") {
        query.conditions.push(parser.condition()?);
        while parser.takes("AND") {
            query.conditions.push(parser.condition()?);
        }
    }
    if parser.takes("ORDER") {
        parser.keyword("BY")?;
        loop {
            let field = parser.word()?;
            let down = parser.takes("DESC");
            if !down {
                parser.takes("ASC");
            }
            query.order.push((field, down));
            if !parser.sign(",") {
                break;
            }
        }
    }
    if parser.takes("LIMIT") {
        query.limit = Some(parser.number()?);
    }
    if parser.takes("OFFSET") {
        query.offset = parser.number()?;
        if query.offset > 2_000 {
            return Err(ApiError::new(
                400,
                "NUMBER_OUTSIDE_VALID_RANGE",
                "Maximum SOQL offset allowed is 2000",
            ));
        }
    }
    match parser.tokens.next() {
        None => Ok(query),
        other => Err(malformed(format!("unexpected token: {}", shown(other.as_ref())))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_taken_apart() {
        let query = parse(
            "SELECT Id, Account.Name FROM Contact WHERE SystemModstamp >= 2024-01-01T00:00:00.000+0000 AND Id > '003' \
             AND Name IN ('O\\'Hara', 'b') ORDER BY SystemModstamp ASC, Id DESC LIMIT 10 OFFSET 5",
        )
        .expect("a query");
        assert_eq!(query.fields, ["Id", "Account.Name"]);
        assert_eq!(query.conditions.len(), 3);
        assert_eq!(query.conditions[2].values[0], Literal::Text("O'Hara".to_owned()));
        assert_eq!(
            query.order,
            [("SystemModstamp".to_owned(), false), ("Id".to_owned(), true)]
        );
        assert_eq!((query.limit, query.offset), (Some(10), 5));
    }

    #[test]
    fn what_is_no_query_is_malformed() {
        for text in [
            "",
            "SELECT FROM Contact",
            "SELECT Id FROM Contact WHERE Id = 'O'Hara'",
            "SELECT Id FROM Contact WHERE Id = 'open",
            "SELECT Id FROM Contact WHERE SystemModstamp > 2024-01-01T00:00:00.000 0000",
            "SELECT Id FROM Contact ORDER Id",
            "SELECT Id FROM Contact WHERE Id IN ('a'",
            "DELETE FROM Contact",
        ] {
            assert_eq!(parse(text).expect_err(text).code, "MALFORMED_QUERY", "{text}");
        }
        let far = parse("SELECT Id FROM Contact LIMIT 1 OFFSET 2001").expect_err("far");
        assert_eq!(far.code, "NUMBER_OUTSIDE_VALID_RANGE");
    }
}
