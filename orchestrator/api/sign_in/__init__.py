"""Single sign-on with OpenID Connect: people by authorisation code with PKCE, pipelines by the tokens of their CI.

    settings    the file that says whom to trust, and for what
    keys        an issuer's signing keys: found, kept, and read anew when a token names one that is not known
    tokens      from a signed token to an identity of the service, or to nothing
    browser     signing in and out in a browser: redirect, code, session

API tokens stay beside it, for machines and for partners: a partner's account never comes through single sign-on.
"""
