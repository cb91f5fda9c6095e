"""People, groups, keys and the home page."""

from __future__ import annotations

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django.urls import reverse
from knox.models import AuthToken
from rest_framework.test import APIClient

from training.models import GroupScope, ModelVersion, RegisteredModel
from training.services import access, registry

pytestmark = pytest.mark.django_db
KEYS = "/admin/knox/authtoken/"


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


def clerk(*permissions: str) -> Client:
    """A logged-in staff member with these Django permissions."""
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


# -- keys ----------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_works(admin: Client, churn: ModelVersion) -> None:
    shop = User.objects.create_superuser("shop")
    response = admin.post(f"{KEYS}add/", {"client": shop.pk, "days": "30"})
    assert response.headers["Cache-Control"].count("no-store") == 1
    found = re.search(r'id="vg-key">([0-9a-f]+)<', response.content.decode())
    assert found is not None
    key = found[1]
    asked = APIClient().get("/api/v1/models/", headers={"Authorization": f"Token {key}"})
    assert asked.status_code == 200
    token = AuthToken.objects.get(user=shop)
    assert token.expiry is not None
    assert round((token.expiry - token.created).total_seconds() / 86400) == 30
    for address in (KEYS, f"{KEYS}add/", f"{KEYS}{token.pk}/delete/"):
        assert key not in admin.get(address).content.decode()
    assert key not in str(admin.session.items()) + str(admin.cookies)
    assert LogEntry.objects.get(object_id=str(shop.pk)).change_message == f"Key {key[:8]}… issued."


def test_a_revoked_key_no_longer_works(admin: Client, api: APIClient, client_user: User) -> None:
    token = AuthToken.objects.get(user=client_user)
    page = admin.get(f"{KEYS}{token.pk}/delete/").content.decode()
    assert f"key {token.token_key}… of tester" in page
    admin.post(f"{KEYS}{token.pk}/delete/", {"post": "yes"})
    assert api.get("/api/v1/models/").status_code == 401


def test_expired_keys_are_marked(admin: Client, client_user: User) -> None:
    AuthToken.objects.create(user=client_user, expiry=None)
    expired, _ = AuthToken.objects.create(user=client_user, expiry=None)
    expired.expiry = expired.created
    expired.save()
    page = admin.get(KEYS).content.decode()
    assert page.count("expired</span>") == 1
    assert page.count("valid</span>") == 1


def test_whoever_issues_keys_cannot_issue_a_superusers(admin: Client) -> None:
    boss = User.objects.get(username="boss")
    client = clerk("add_authtoken", "view_authtoken")
    refused = client.post(f"{KEYS}add/", {"client": boss.pk})
    assert refused.status_code == 200
    assert not AuthToken.objects.exists()
    assert clerk_without_rights().get(f"{KEYS}add/").status_code == 403


def clerk_without_rights() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("guest", is_staff=True))
    return client


# -- people and groups ---------------------------------------------------------------------------------


def test_people_are_not_deleted(admin: Client, client_user: User) -> None:
    assert admin.post(f"/admin/auth/user/{client_user.pk}/delete/", {"post": "yes"}).status_code == 403


def test_whoever_looks_after_people_cannot_give_rights(admin: Client) -> None:
    boss = User.objects.get(username="boss")
    client = clerk("change_user", "view_user")
    assert client.post(f"/admin/auth/user/{boss.pk}/password/", {}).status_code == 403
    me = User.objects.get(username="clerk")
    sent = {"username": "clerk", "is_active": "on", "is_superuser": "on", "is_staff": "on"}
    client.post(f"/admin/auth/user/{me.pk}/change/", sent)
    me.refresh_from_db()
    assert not me.is_superuser


def test_a_group_is_made_with_rights_limited_to_models(admin: Client) -> None:
    registry.sync_catalogue()
    churn = RegisteredModel.objects.get(name="churn")
    page = admin.get("/admin/auth/group/add/").content.decode()
    assert "The five rights" in page
    right = Permission.objects.get(codename="predict")
    sent = {
        "name": "shops",
        "permissions": [right.pk],
        "scope-TOTAL_FORMS": 1,
        "scope-INITIAL_FORMS": 0,
        "scope-0-registered_models": [churn.pk],
    }
    assert admin.post("/admin/auth/group/add/", sent).status_code == 302
    group = Group.objects.get(name="shops")
    assert list(GroupScope.objects.get(group=group).registered_models.all()) == [churn]
    member = User.objects.create_user("till")
    member.groups.add(group)
    assert list(access.allowed_models(member, "predict")) == [churn]
    listed = admin.get("/admin/auth/group/").content.decode()
    assert "predict" in listed
    assert "churn" in listed


def test_a_group_without_a_limit_gets_no_scope(admin: Client) -> None:
    sent = {"name": "all", "scope-TOTAL_FORMS": 1, "scope-INITIAL_FORMS": 0}
    assert admin.post("/admin/auth/group/add/", sent).status_code == 302
    assert not GroupScope.objects.exists()


@pytest.mark.parametrize("name", ["auth_user", "auth_group", "knox_authtoken"])
def test_the_lists_of_people_groups_and_keys_answer(admin: Client, client_user: User, name: str) -> None:
    assert admin.get(reverse(f"admin:{name}_changelist")).status_code == 200
    assert admin.get(reverse(f"admin:{name}_add")).status_code == 200


# -- the pages outside ---------------------------------------------------------------------------------


def test_the_home_page_says_what_is_served(admin: Client, churn: ModelVersion) -> None:
    page = Client().get("/").content.decode()
    assert "Customer churn" in page
    assert "roc_auc" not in page, "versions and metrics are for people who are logged in"
    assert "roc_auc of version 1" in admin.get("/").content.decode()
    assert "Token $KEY" in page
    assert "/api/v1/models/churn/predictions/" in page
    assert "://" not in re.sub(r"http://testserver", "", page)  # nothing from elsewhere


def test_an_error_page_is_for_browsers(client: Client) -> None:
    page = client.get("/nowhere", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert "Not on this horizon" in page.content.decode()


def test_the_documentation_comes_from_here(client: Client, db: None) -> None:
    page = client.get("/api/docs/").content.decode()
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
