"""Every second request carries credentials that the CRM takes, and every second of these a ticket worth creating, so that more
than refusals is seen."""

import itertools

import schemathesis

GOOD = {"account": "demo", "token": "demo-token"}
turn = itertools.count()


@schemathesis.hook
def map_body(context, body):
    now = next(turn)
    if not isinstance(body, dict) or now % 2:
        return body
    body = {**body, "auth": GOOD}
    if "/actions/" in context.operation.path and now % 4:
        body |= {"meta": {"contact_external_id": "1"}, "data": {"subject": f"Call back {now}"}}
    return body
