//! Who may do what: the one place where that is decided. Every resolver asks [`Access::check`] or one of its short forms
//! before it shows or changes something of an account. Pure.

use crate::error::ApiError;
use schema::id::{AccountKey, DeviceTokenId, SessionId, UserId};
use storage::{OperatorRole, TokenScope};

/// What somebody wants to do in an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Its standing, balance, caller IDs, SIP usernames.
    SeeAccount,
    /// Its calls, live and past.
    SeeCalls,
    /// Its ledger.
    SeeLedger,
    /// Its callback numbers: nobody but its own people, whatever their role.
    SeeCallbackNumbers,
    /// Ask what a call would cost.
    Quote,
    /// End a call.
    HangUp,
}

impl Right {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 6] =
        [Self::SeeAccount, Self::SeeCalls, Self::SeeLedger, Self::SeeCallbackNumbers, Self::Quote, Self::HangUp];

    /// What a device token must be good for.
    const fn scope(self) -> TokenScope {
        match self {
            Self::SeeAccount | Self::SeeCalls | Self::SeeLedger | Self::SeeCallbackNumbers | Self::Quote => {
                TokenScope::Read
            }
            Self::HangUp => TokenScope::Call,
        }
    }

    /// Operator staff who may do it in any account.
    const fn staff(self) -> &'static [OperatorRole] {
        match self {
            Self::SeeAccount => &OperatorRole::ALL,
            Self::SeeCalls => &[OperatorRole::Admin, OperatorRole::Support, OperatorRole::Compliance],
            Self::SeeLedger => &[OperatorRole::Admin, OperatorRole::Finance, OperatorRole::Compliance],
            Self::SeeCallbackNumbers | Self::Quote | Self::HangUp => &[],
        }
    }
}

/// By what somebody is signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Means {
    /// A browser's cookie.
    Session(SessionId),
    /// An app's bearer token.
    Device(DeviceTokenId),
}

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub(crate) struct Viewer {
    pub(crate) user: UserId,
    pub(crate) means: Means,
    pub(crate) scopes: Vec<TokenScope>,
    /// Accounts this user belongs to, oldest first.
    pub(crate) accounts: Vec<AccountKey>,
    pub(crate) roles: Vec<OperatorRole>,
}

/// Who makes a request: somebody, or nobody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access(pub(crate) Option<Viewer>);

impl Access {
    /// Whoever is signed in, with a token good for `scope`.
    pub(crate) fn viewer(&self, scope: TokenScope) -> Result<&Viewer, ApiError> {
        let viewer = self.0.as_ref().ok_or_else(ApiError::unauthenticated)?;
        if viewer.scopes.contains(&scope) {
            Ok(viewer)
        } else {
            Err(ApiError::forbidden(format!("this token lacks the scope {}", word(scope))))
        }
    }

    /// Whether `right` may be used in `account`. Accounts of others are said not to exist.
    pub(crate) fn check(&self, right: Right, account: AccountKey) -> Result<(), ApiError> {
        let viewer = self.viewer(right.scope())?;
        let is_staff = viewer.roles.iter().any(|role| right.staff().contains(role));
        if viewer.accounts.contains(&account) || is_staff {
            return Ok(());
        }
        let knows = viewer.roles.iter().any(|role| Right::SeeAccount.staff().contains(role));
        Err(if knows { ApiError::forbidden("your role does not allow this") } else { ApiError::not_found("account") })
    }

    /// The viewer's own account, for `right`.
    pub(crate) fn own_account(&self, right: Right) -> Result<AccountKey, ApiError> {
        let viewer = self.viewer(right.scope())?;
        viewer.accounts.first().copied().ok_or_else(|| ApiError::forbidden("you have no account of your own"))
    }

    /// Whether the viewer is operator staff that may use `right` anywhere.
    pub(crate) fn staff(&self, right: Right) -> Result<(), ApiError> {
        let viewer = self.viewer(right.scope())?;
        if viewer.roles.iter().any(|role| right.staff().contains(role)) {
            Ok(())
        } else {
            Err(ApiError::forbidden("your role does not allow this"))
        }
    }

    /// Whether what carriers charge us may be shown.
    pub(crate) fn sees_costs(&self) -> bool {
        self.0.as_ref().is_some_and(|viewer| !viewer.roles.is_empty())
    }
}

/// The word of a scope in the API.
pub(crate) const fn word(scope: TokenScope) -> &'static str {
    match scope {
        TokenScope::Read => "READ",
        TokenScope::Call => "CALL",
        TokenScope::Manage => "MANAGE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use schema::entropy::Entropy;
    use schema::time::Timestamp;

    const MINE: AccountKey = AccountKey(1);
    const OTHER: AccountKey = AccountKey(2);

    fn access(scopes: &[TokenScope], roles: &[OperatorRole]) -> Access {
        let mut entropy = Entropy::from_number(1);
        Access(Some(Viewer {
            user: UserId::generate(&mut entropy, Timestamp(1)),
            means: Means::Session(SessionId::generate(&mut entropy, Timestamp(1))),
            scopes: scopes.to_vec(),
            accounts: vec![MINE],
            roles: roles.to_vec(),
        }))
    }

    fn code(result: Result<(), ApiError>) -> Option<ErrorCode> {
        result.err().map(|error| error.code)
    }

    #[test]
    fn nobody_may_do_anything() {
        for right in Right::ALL {
            assert_eq!(code(Access::default().check(right, MINE)), Some(ErrorCode::Unauthenticated), "{right:?}");
        }
    }

    #[test]
    fn customers_have_all_rights_in_their_account_and_none_elsewhere() {
        let access = access(&TokenScope::ALL, &[]);
        for right in Right::ALL {
            assert_eq!(code(access.check(right, MINE)), None, "{right:?}");
            assert_eq!(code(access.check(right, OTHER)), Some(ErrorCode::NotFound), "{right:?}");
            assert_eq!(code(access.staff(right)), Some(ErrorCode::Forbidden), "{right:?}");
        }
    }

    #[test]
    fn a_token_is_good_for_its_scopes_only() {
        for right in Right::ALL {
            for scope in TokenScope::ALL {
                let expected = (scope != right.scope()).then_some(ErrorCode::Forbidden);
                assert_eq!(code(access(&[scope], &[]).check(right, MINE)), expected, "{right:?} with {scope:?}");
            }
        }
    }

    #[test]
    fn staff_see_what_their_role_needs_and_never_callback_numbers() {
        use OperatorRole::{Admin, Compliance, Finance, Support};
        for (role, allowed) in [
            (Admin, &[Right::SeeAccount, Right::SeeCalls, Right::SeeLedger][..]),
            (Support, &[Right::SeeAccount, Right::SeeCalls][..]),
            (Finance, &[Right::SeeAccount, Right::SeeLedger][..]),
            (Compliance, &[Right::SeeAccount, Right::SeeCalls, Right::SeeLedger][..]),
        ] {
            for right in Right::ALL {
                let expected = (!allowed.contains(&right)).then_some(ErrorCode::Forbidden);
                assert_eq!(code(access(&TokenScope::ALL, &[role]).check(right, OTHER)), expected, "{role:?} {right:?}");
            }
        }
    }
}
