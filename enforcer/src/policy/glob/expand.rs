//! Braces → alternatives.

use super::{
    EXPANSIONS, GlobError,
    lex::{Kind, Token},
};

/// Every way to read a glob with one choice per brace. The tokens are balanced.
pub(super) fn alternatives(tokens: &[Token]) -> Result<Vec<Vec<Token>>, GlobError> {
    let mut position = 0;
    sequence(tokens, &mut position, 0)
}

/// Deepest nesting of braces.
const NESTING: usize = 16;
/// Most tokens that all alternatives together may have.
const TOKENS: usize = 400_000;

/// Reads up to the end, or to the comma or brace that ends the enclosing choice.
fn sequence(tokens: &[Token], position: &mut usize, depth: usize) -> Result<Vec<Vec<Token>>, GlobError> {
    let mut ways: Vec<Vec<Token>> = vec![Vec::new()];
    while let Some(token) = tokens.get(*position) {
        match token.kind {
            Kind::Comma | Kind::Close => break,
            Kind::Open => {
                if depth == NESTING {
                    return Err(GlobError::new(
                        token.at,
                        format!("braces are nested deeper than {NESTING}"),
                        "write several paths instead",
                    ));
                }
                let at = token.at;
                let choices = choice(tokens, position, depth + 1)?;
                if ways.len() * choices.len() > EXPANSIONS || ways.len() * choices.len() * *position > TOKENS
                {
                    return Err(too_many(at));
                }
                ways =
                    ways.iter().flat_map(|way| choices.iter().map(move |c| [&way[..], c].concat())).collect();
            }
            Kind::Byte(_) | Kind::Set(_) | Kind::Star | Kind::Slash => {
                ways.iter_mut().for_each(|way| way.push(*token));
                *position += 1;
                if ways.len() * *position > TOKENS {
                    return Err(too_many(token.at));
                }
            }
        }
    }
    Ok(ways)
}

/// Reads `{…,…}`.
fn choice(tokens: &[Token], position: &mut usize, depth: usize) -> Result<Vec<Vec<Token>>, GlobError> {
    let mut choices = Vec::new();
    loop {
        // The opening brace, or the comma.
        let at = tokens.get(*position).map_or(0, |token| token.at);
        *position += 1;
        choices.extend(sequence(tokens, position, depth)?);
        if choices.len() > EXPANSIONS {
            return Err(too_many(at));
        }
        match tokens.get(*position).map(|token| token.kind) {
            Some(Kind::Comma) => {}
            _ => {
                *position += 1;
                return Ok(choices);
            }
        }
    }
}

fn too_many(at: usize) -> GlobError {
    GlobError::new(
        at,
        format!("the braces stand for more than {EXPANSIONS} paths"),
        "use `*` where any name will do, or a class such as `[0-9]`",
    )
}
