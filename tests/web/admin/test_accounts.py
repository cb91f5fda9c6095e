"""The admin's pages of accounts, groups and keys, and the home page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django.urls import reverse
from knox.models import AuthToken
from rest_framework.test import APIClient

from training.access import permissions as access
from training.admin.rights import RegistryAdmin
from training.models import GroupScope, ModelVersion, RegisteredModel
from training.registry import lookup

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
    match = re.search(r'id="vg-key">([0-9a-f]+)<', response.content.decode())
    assert match is not None
    key = match[1]
    models = APIClient().get("/api/v1/models/", headers={"Authorization": f"Token {key}"})
    assert models.status_code == 200
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


def test_only_a_superuser_issues_a_superusers_key(admin: Client) -> None:
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


def test_accounts_cannot_be_deleted(admin: Client, client_user: User) -> None:
    assert admin.post(f"/admin/auth/user/{client_user.pk}/delete/", {"post": "yes"}).status_code == 403


def test_only_a_superuser_gives_rights(admin: Client) -> None:
    boss = User.objects.get(username="boss")
    client = clerk("change_user", "view_user")
    assert client.post(f"/admin/auth/user/{boss.pk}/password/", {}).status_code == 403
    me = User.objects.get(username="clerk")
    sent = {"username": "clerk", "is_active": "on", "is_superuser": "on", "is_staff": "on"}
    client.post(f"/admin/auth/user/{me.pk}/change/", sent)
    me.refresh_from_db()
    assert not me.is_superuser


def test_a_group_can_be_limited_to_models(admin: Client) -> None:
    lookup.sync_catalogue()
    churn = RegisteredModel.objects.get(name="churn")
    page = admin.get("/admin/auth/group/add/").content.decode()
    assert "The six rights" in page
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


def test_the_home_page_lists_the_models(admin: Client, churn: ModelVersion) -> None:
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
    assert "Page not found" in page.content.decode()


def test_the_documentation_loads_nothing_from_other_hosts(client: Client, db: None) -> None:
    page = client.get("/api/docs/").content.decode()
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)


def test_a_model_without_an_active_version_has_no_try_it_link(admin: Client) -> None:
    lookup.sync_catalogue()
    row = RegisteredModel.objects.get(name="churn")
    for path in ("/", "/admin/", reverse("admin:training_registeredmodel_change", args=[row.pk])):
        page = admin.get(path).content.decode()
        assert "Try it" not in page, path
        assert "Customer churn" in page, path


def test_an_active_version_has_a_try_it_link(admin: Client, churn: ModelVersion) -> None:
    for path in ("/", "/admin/", f"/admin/training/registeredmodel/{churn.registered_model_id}/change/"):
        page = admin.get(path).content.decode()
        assert re.search(r'href="/api/v1/models/churn/predictions/"[^>]*>Try it', page), path
    assert "Ask it" not in Client().get("/").content.decode()


def test_every_link_of_the_api_root_answers(api: APIClient, churn: ModelVersion) -> None:
    links = api.get("/api/v1/").json()["links"]
    assert links.pop("health").endswith("/healthz/ready")  # which has no worker to find in a test
    assert {api.get(address).status_code for address in links.values()} == {200}
    model = api.get("/api/v1/models/churn/").json()
    assert {name: api.get(address).status_code for name, address in model["links"].items()} == dict.fromkeys(
        model["links"], 200
    )
    assert "active" in model["links"]
    assert "active" not in api.get("/api/v1/models/houses/").json()["links"]
    page = api.get("/api/v1/", headers={"Accept": "text/html"}).content.decode()
    assert 'href="http://testserver/api/v1/models/"' in page
    assert Client().get("/api/v1/").status_code == 401


# -- the login -----------------------------------------------------------------------------------------

LOGIN = "/admin/login/?next=/admin/"
HINT = "wrote the password of admin"


def test_the_login_shows_an_error_once(db: None) -> None:
    page = Client().post(LOGIN, {"username": "nobody", "password": "guess"}).content.decode()
    assert page.count("Please enter the correct username and password") == 1
    assert "correct the error" not in page
    blank = Client().post(LOGIN, {"username": "", "password": ""}).content.decode()
    assert blank.count("This field is required") == 2


def test_the_login_names_the_password_file_of_the_local_stack(
    db: None, settings: Any, tmp_path: Path
) -> None:
    settings.VAR_DIR, settings.LOCAL = tmp_path, True
    assert HINT not in Client().get(LOGIN).content.decode(), "the file does not exist"
    (tmp_path / "admin-password").write_text("a long watch by night", encoding="utf-8")
    page = Client().get(LOGIN).content.decode()
    assert f"{HINT} to <code>admin-password in $VIGIA_VAR</code>" in page
    assert "watch by night" not in page
    assert str(tmp_path) not in page
    settings.BASE_DIR = tmp_path.parent
    assert f"<code>{tmp_path.name}/admin-password</code>" in Client().get(LOGIN).content.decode()
    assert HINT not in Client(REMOTE_ADDR="198.51.100.7").get(LOGIN).content.decode(), "another machine"
    settings.LOCAL = False
    assert HINT not in Client().get(LOGIN).content.decode(), "a server"


# -- empty lists ---------------------------------------------------------------------------------------


def test_an_empty_list_explains_how_rows_are_created(admin: Client) -> None:
    lists = [model for model, each in site._registry.items() if isinstance(each, RegistryAdmin)]
    assert len(lists) >= 12
    for model in lists:
        address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        page = admin.get(address).content.decode()
        assert "Nothing here yet" in page, address
        assert site._registry[model].nothing_yet in page, address  # type: ignore[attr-defined]
        assert site._registry[model].nothing_yet, address  # type: ignore[attr-defined]
        assert "Create a new item" not in page, address
    filtered = admin.get(reverse("admin:training_rollout_changelist"), {"q": "never"}).content.decode()
    assert "Nothing matches" in filtered
    assert "Reset search and filters" in filtered
