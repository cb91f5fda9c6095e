"""Django's settings, read from the environment, safe by default. docs/operating.md lists every variable."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import dj_database_url
from django.templatetags.static import static
from django.urls import reverse_lazy

from core import env
from core.metrics import multiprocess_dir
from core.version import VERSION

BASE_DIR = env.BASE_DIR
VAR_DIR = env.var_dir()

# The local stack serves plain HTTP on loopback; everywhere else HTTPS is expected unless switched off.
LOCAL = env.flag("VIGIA_LOCAL", default=bool(env.local_stack()))
HTTPS = env.flag("VIGIA_HTTPS", default=not LOCAL)

DEBUG = env.flag("DEBUG", default=False)
SECRET_KEY = env.from_stack("SECRET_KEY", "secret_key")
# Signs artifacts. It differs from SECRET_KEY so that each can be rotated without the other.
ARTIFACT_KEY = env.artifact_key(default=SECRET_KEY)
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "axes",
    "config",
    "web",
    "core",
    "training",
    "predictions",
    "recommender",
]

MIDDLEWARE = [
    "web.middleware.RequestIdMiddleware",
    "web.metrics.views.AnswerScrapers",
    "web.content_policy.ContentPolicyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "web.middleware.DescribeMissingMethods",
    "web.middleware.RefuseUnreadableBodies",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "web.middleware.AppendSlashToPages",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "web.wsgi.application"
APPEND_SLASH = True

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # Precedes the apps: some templates here replace those of the admin's theme.
        "DIRS": [BASE_DIR / "web" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# -- the database of log, registry and keys ---------------------------------------------
DATABASES: dict[str, Any] = {
    "default": dj_database_url.parse(
        env.from_stack("DATABASE_URL", "database_url"),
        engine="core.database",
        conn_max_age=env.number("DATABASE_CONN_MAX_AGE", 600),
        conn_health_checks=True,
    )
}
DATABASES["default"]["OPTIONS"] = {
    # If PostgreSQL cannot be reached, a prediction is refused with 503 and does not wait.
    "connect_timeout": env.number("DATABASE_CONNECT_TIMEOUT", 5),
    "application_name": "vigia",
    # Milliseconds that a statement waits for a lock, and a connection for a server that acknowledges
    # nothing.
    "options": "-c lock_timeout=10000",
    "tcp_user_timeout": 10_000,
    # With keepalives, an idle connection detects that the server has disappeared.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    **DATABASES["default"].get("OPTIONS", {}),  # options of DATABASE_URL override these
}
# Time limit in seconds for one answer of PostgreSQL to a process that answers requests; see
# core.database.limits.
DATABASE_ANSWER_SECONDS = env.number("DATABASE_ANSWER_SECONDS", 15)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# -- bytes: artifacts and datasets ---------------------------------------------------------------------
STORAGES: dict[str, Any] = {
    "default": {
        "BACKEND": "training.storage.AtomicFileSystemStorage",
        "OPTIONS": {"location": str(VAR_DIR / "store"), "file_permissions_mode": 0o600},
    },
    "staticfiles": {
        # The local stack serves pages over loopback, where compression gains nothing.
        "BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
        if LOCAL
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
STATIC_URL = "/static/"
STATIC_ROOT = env.text("STATIC_ROOT", str(VAR_DIR / "static"))

# -- engines -------------------------------------------------------------------------------------------
# Whether a version that only scikit-learn can serve is refused; set where web runs from the slim image.
COMPILED_ONLY = env.flag("COMPILED_ONLY", default=False)

# -- jobs: one process each, started by the worker -----------------------------------------------------
JOB_SOFT_SECONDS = env.number("JOB_SOFT_SECONDS", 3600)  # soft time limit of a job: then it is asked to stop
JOB_HARD_SECONDS = env.number("JOB_HARD_SECONDS", 3900)  # hard time limit of a job: then it is killed
JOB_CANCEL_SECONDS = env.number("JOB_CANCEL_SECONDS", 15)  # from a cancellation to the kill
JOB_LEASE_SECONDS = env.number("JOB_LEASE_SECONDS", 60)  # without a renewal
JOB_PUBLISH_SECONDS = env.number("JOB_PUBLISH_SECONDS", 30)  # between checks for lost messages
JOB_POLL_SECONDS = env.number("JOB_POLL_SECONDS", 5)  # between polls of a worker
JOB_MEMORY_MB = env.number("JOB_MEMORY_MB", 0)  # memory limit of a job's process; 0: none
DASK_SCHEDULER = env.text("DASK_SCHEDULER", "")  # runs searches; such as tcp://dask:8786

# -- Celery: the broker carries ids, nothing else ------------------------------------------------------
TASKS_APPLICATION = "config.celery"  # training.queueing imports it with the first job
CELERY_BROKER_URL = env.from_stack("REDIS_URL", "redis_url")
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CONSUMER = "config.consumer:Consumer"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # the broker may be unavailable for hours
# All waits for the broker are limited: it may be unavailable, frozen, or behind a network that drops packets.
# The rows of jobs do not need it.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_connect_timeout": 2,
    "socket_timeout": 5,
    # The connection to a peer that disappears ends within half a minute.
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value
        for name, value in {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}.items()
        if hasattr(socket, name)
    },
    "health_check_interval": 10,  # detects a broker that does not answer a waiting consumer
    "visibility_timeout": 3600,
    # Limits publishing; without them kombu retries for ever with growing pauses and logs nothing.
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.2,
}
CELERY_TASK_PUBLISH_RETRY = False
CELERY_BEAT_SCHEDULER = "config.scheduler:Scheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 10  # seconds
CELERY_TIMEZONE = "UTC"
ROLLUP_SECONDS = env.number("ROLLUP_SECONDS", 60)  # between two counts of the log
REVIEW_SECONDS = env.number("REVIEW_SECONDS", 300)  # between checks for due drift reviews
HOUSEKEEPING = "housekeeping"


def _housekeeping(task: str, seconds: float) -> dict[str, Any]:
    """Returns the schedule of a housekeeping task.

    Housekeeping has its own queue and worker, because a training run may occupy the other worker for hours. A
    message that no worker has taken when the next one is sent expires."""
    options = {"queue": HOUSEKEEPING, "expires": seconds}
    return {"task": f"predictions.tasks.{task}", "schedule": seconds, "options": options}


CELERY_BEAT_SCHEDULE: dict[str, Any] = {
    "publish-waiting-jobs": {
        "task": "training.tasks.publish_waiting_jobs",
        "schedule": float(JOB_PUBLISH_SECONDS),
    },
    "make-partitions": _housekeeping("make_partitions", 6 * 3600.0),
    "forget-shadow-answers": _housekeeping("forget_shadow_answers", 24 * 3600.0),
    "prune-artifacts": _housekeeping("prune_artifacts", 24 * 3600.0),
    "remove-left-pushes": _housekeeping("remove_left_pushes", 3600.0),
    "remove-old-batches": _housekeeping("remove_old_batches", 3600.0),
    "remove-expired-keys": _housekeeping("remove_expired_keys", 300.0),
    "forget-idempotency-keys": _housekeeping("forget_idempotency_keys", 3600.0),
    "remove-old-exports": _housekeeping("remove_old_exports", 3600.0),
    "join-waiting-outcomes": _housekeeping("join_waiting_outcomes", 180.0),
    "count-the-log": _housekeeping("count_the_log", float(ROLLUP_SECONDS)),
    "review-models": _housekeeping("review_models", float(REVIEW_SECONDS)),
    "remove-old-months": _housekeeping("remove_old_months", 24 * 3600.0),
    "remove-old-events": _housekeeping("remove_old_events", 3600.0),
}

# -- /metrics ------------------------------------------------------------------------------------------
METRICS_TOKEN = env.text("METRICS_TOKEN", str(env.local_stack().get("metrics_token") or ""))  # "": none
METRICS_DIR = str(multiprocess_dir.base())  # metrics files of the processes of this machine
WORKER_METRICS_PORT = env.number("WORKER_METRICS_PORT", 0)  # of the worker's own metrics; 0: none

# -- the API -------------------------------------------------------------------------------------------
RATE_LIMIT = env.text("RATE_LIMIT", "")  # such as 1000/min, per key and process; "": none
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "web.authentication.KeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "web.renderers.BrowsableRenderer",
    ],
    "DEFAULT_PARSER_CLASSES": ["training.parsers.StrictJSONParser"],
    "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.UserRateThrottle"] if RATE_LIMIT else [],
    "DEFAULT_THROTTLE_RATES": {"user": RATE_LIMIT or None},
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "web.errors.handle",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
REST_KNOX = {
    "TOKEN_TTL": None,  # each key has its own expiry; see training.access.client_keys
    "AUTH_HEADER_PREFIX": "Token",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Vigía",
    "VERSION": VERSION,
    "DESCRIPTION": "Serves scikit-learn models and logs every prediction.",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "OAS_VERSION": "3.1.0",
    "PREPROCESSING_HOOKS": ["web.openapi.only_the_api"],
    "POSTPROCESSING_HOOKS": ["web.openapi.add_models"],
}

# -- events and mail -----------------------------------------------------------------------------------
# Networks without public addresses to which events may be sent, such as 10.0.0.0/8; over HTTP too.
EVENTS_ALLOW_INTERNAL = env.networks("EVENTS_ALLOW_INTERNAL")
# Address of this service in links of messages, such as https://vigia.example.com; "": no links.
PUBLIC_URL = env.text("PUBLIC_URL", "").rstrip("/")
EVENTS_SOURCE = env.text("EVENTS_SOURCE", PUBLIC_URL or "vigia")  # name of this installation in messages
EVENTS_ATTEMPTS = env.number("EVENTS_ATTEMPTS", 24)  # about 14 hours; then the message is a dead letter
EVENTS_KEEP_DAYS = env.number("EVENTS_KEEP_DAYS", 30)  # events, deliveries, dead letters
EMAIL_BACKEND = env.text("EMAIL_BACKEND", "django.core.mail.backends.smtp.EmailBackend")
EMAIL_HOST = env.text("EMAIL_HOST", "")  # "": no mail
EMAIL_PORT = env.number("EMAIL_PORT", 587)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_SSL = env.flag("EMAIL_USE_SSL", default=False)  # TLS from the first byte, as on port 465
EMAIL_USE_TLS = env.flag("EMAIL_USE_TLS", default=not EMAIL_USE_SSL)  # STARTTLS
EMAIL_TIMEOUT = env.number("EMAIL_TIMEOUT", 10)  # seconds for each step of the protocol
DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", EMAIL_HOST_USER or "vigia@localhost")

# -- limits; all settable ------------------------------------------------------------------------------
PREDICT_MAX_ROWS = env.number("PREDICT_MAX_ROWS", 10_000)
PREDICT_MAX_BYTES = env.number("PREDICT_MAX_BYTES", 8 * 2**20)
TRAINING_MAX_BYTES = env.number("TRAINING_MAX_BYTES", 256 * 2**20)
PUSH_MAX_BYTES = env.number("PUSH_MAX_BYTES", 256 * 2**20)
BATCH_MAX_BYTES = env.number("BATCH_MAX_BYTES", 4 * 2**30)  # unpacked
BATCH_LOCATIONS = env.folders("BATCH_LOCATIONS")  # name=folder, …: files that batches may read
BATCH_KEEP_DAYS = env.number("BATCH_KEEP_DAYS", 30)  # files of batches; 0: for ever
BATCH_CHUNK_ROWS = env.number("BATCH_CHUNK_ROWS", 8_000)  # rows that are logged in one transaction
BATCH_WORKERS = env.number("BATCH_WORKERS", 2)  # processes that share one batch
UPLOAD_QUOTA_BYTES = env.number("UPLOAD_QUOTA_BYTES", 4 * 2**30)
PUSHES_PER_DAY = env.number("PUSHES_PER_DAY", 200)
STORE_RESERVE_BYTES = env.number("STORE_RESERVE_BYTES", 256 * 2**20)
HEAD_SECONDS = env.number("HEAD_SECONDS", 10)  # for the headers of a request
BODY_SILENCE_SECONDS = env.number("BODY_SILENCE_SECONDS", 10)  # maximum pause within a body
BODY_SECONDS = env.number("BODY_SECONDS", 60)  # for a body, plus the time that its bytes earn
ANSWER_SECONDS = env.number("ANSWER_SECONDS", 60)  # for a client to read an answer, plus the same
CLIENT_BYTES_PER_SECOND = env.number("CLIENT_BYTES_PER_SECOND", 16_384)  # bytes that earn one more second
MAX_WAIT_SECONDS = env.number("MAX_WAIT_SECONDS", 120)
LOG_QUEUE_ROWS = env.number("LOG_QUEUE_ROWS", 50_000)  # rows waiting for their commit, per process
LOG_WAIT_SECONDS = env.number("LOG_WAIT_SECONDS", 15)
SHADOW_QUEUE_ROWS = env.number("SHADOW_QUEUE_ROWS", 5_000)  # rows waiting, per process; 0: no shadow
SHADOW_LAG_SECONDS = env.number("SHADOW_LAG_SECONDS", 5)  # rows that wait longer are dropped
IDEMPOTENCY_HOURS = env.number("IDEMPOTENCY_HOURS", 24)
PARTITIONS_AHEAD = env.number("PARTITIONS_AHEAD", 3)
EXPORT_KEEP_DAYS = env.number("EXPORT_KEEP_DAYS", 7)  # files of log exports; 0: for ever
EXPORT_MAX_BYTES = env.number("EXPORT_MAX_BYTES", 20 * 2**30)  # of one log export
LOG_KEEP_MONTHS = env.number("LOG_KEEP_MONTHS", 0)  # older months are removed; 0: none
# The views check lengths by route and answer in the API's error shape.
DATA_UPLOAD_MAX_MEMORY_SIZE = max(PREDICT_MAX_BYTES, 2_621_440)

# -- security ------------------------------------------------------------------------------------------
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
# The first backend limits wrong passwords; see web.logins.
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
LOGIN_ATTEMPTS = AXES_FAILURE_LIMIT = env.number("LOGIN_ATTEMPTS", 10)
LOGIN_LOCK_MINUTES = env.number("LOGIN_LOCK_MINUTES", 15)
AXES_COOLOFF_TIME = timedelta(minutes=LOGIN_LOCK_MINUTES)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_CLIENT_IP_CALLABLE = "web.logins.client_address"
AXES_LOCKOUT_CALLABLE = "web.logins.locked"
AXES_DISABLE_ACCESS_LOG = True  # the session records a login
AXES_ENABLE_ADMIN = False  # manage.py axes_reset_username unlocks
AXES_VERBOSE = False
LOGIN_URL, LOGIN_REDIRECT_URL = "/admin/login/", "/admin/"
CSRF_FAILURE_VIEW = "web.errors.csrf_failure"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_SSL_REDIRECT = HTTPS and env.flag("HTTPS_REDIRECT", default=True)
SECURE_REDIRECT_EXEMPT = [r"^healthz/", r"^ping$", r"^metrics$"]
SECURE_HSTS_SECONDS = env.number("HSTS_SECONDS", 31_536_000) if HTTPS else 0
# Both bind hosts that Vigía may not own, and a preload list takes months to leave.
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS and env.flag("HSTS_SUBDOMAINS", default=False)
SECURE_HSTS_PRELOAD = HTTPS and env.flag("HSTS_PRELOAD", default=False)
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]  # the two above, if they are off
if not HTTPS:  # `config.checks.https_is_on` says it in one sentence
    SILENCED_SYSTEM_CHECKS += ["security.W004", "security.W008", "security.W012", "security.W016"]
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
BEHIND_PROXY = env.flag("BEHIND_PROXY", default=False)
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# The header in which proxies name the client, and the number of proxies that append to it.
CLIENT_ADDRESS_HEADER = env.text("CLIENT_ADDRESS_HEADER", "X-Forwarded-For" if BEHIND_PROXY else "")
TRUSTED_PROXIES = env.number("TRUSTED_PROXIES", 1)

# -- time, language, logging ---------------------------------------------------------------------------
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = True
FORMAT_MODULE_PATH = "config.formats"  # ISO 8601
USE_THOUSAND_SEPARATOR = True
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(request_id)s %(name)s %(message)s"}},
    "filters": {"request": {"()": "web.log_filter.RequestIdFilter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request"]}},
    "root": {"handlers": ["console"], "level": env.text("LOG_LEVEL", "INFO")},
    "loggers": {
        "django.request": {"level": "ERROR"},
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        # At INFO it logs addresses, and that of a Slack channel is a secret.
        "httpx": {"level": "WARNING"},
    },
}

# -- the admin's looks and its sidebar -----------------------------------------------------------------


def _link(title: str, icon: str, route: str, permission: Any = None) -> dict[str, Any]:
    """Returns an entry of the sidebar; `permission` is, or names, the function that checks who sees it."""
    entry = {"title": title, "icon": icon, "link": reverse_lazy(route), "permission": permission}
    # "/" is part of every address, so these entries would always look active.
    return entry if route.startswith(("admin:", "watch")) else entry | {"active": False}


def _group(title: str, *links: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "items": links}


def _has(*permissions: str) -> Any:
    """Returns a function that checks whether the user has one of Django's permissions."""
    return lambda request: any(map(request.user.has_perm, permissions))


_MODELS, _LOG = "training.admin.rights.sees_models", "training.admin.rights.sees_log"
_EVENTS = "training.admin.events.sees_events"
_MOVIES = "recommender.admin.rights.sees_movies"
_READERS = "recommender.admin.rights.sees_interactions"
_PEOPLE = _has("auth.view_user", "auth.change_user")
UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Vigía",
    "SITE_HEADER": "Vigía",
    "SITE_SUBHEADER": "model serving with a log",
    "SITE_URL": "/",
    "SITE_ICON": lambda request: static("vigia/mark.svg"),
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("vigia/mark.svg")}
    ],
    "STYLES": [lambda request: static("vigia/admin.css")],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "6px",
    "DASHBOARD_CALLBACK": "web.admin.dashboard.context",
    "LOGIN": {"form": "web.login_form.LoginForm"},
    "COLORS": {
        "primary": {
            "50": "oklch(97.5% .013 220)",
            "100": "oklch(94.5% .03 220)",
            "200": "oklch(89% .055 220)",
            "300": "oklch(81% .085 220)",
            "400": "oklch(74% .1 222)",
            "500": "oklch(68% .105 224)",
            "600": "oklch(49% .09 226)",
            "700": "oklch(43% .08 228)",
            "800": "oklch(37.5% .07 230)",
            "900": "oklch(32% .055 232)",
            "950": "oklch(24% .045 234)",
        }
    },
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": [
            {"items": [_link("Overview", "visibility", "admin:index")]},
            _group(
                "Registry",
                _link("Models", "model_training", "admin:training_registeredmodel_changelist", _MODELS),
                _link("Versions", "deployed_code", "admin:training_modelversion_changelist", _MODELS),
                _link("Training runs", "cycle", "admin:training_trainingrun_changelist", _MODELS),
                _link("Rollouts", "alt_route", "admin:training_rollout_changelist", _MODELS),
                _link("Datasets", "table_rows", "admin:training_dataset_changelist", _MODELS),
                _link("Activations", "history", "admin:training_activation_changelist", _MODELS),
            ),
            _group(
                "Monitoring",
                _link("Drift and quality", "monitoring", "watched", _MODELS),
                _link("Drift reviews", "compare", "admin:predictions_driftreview_changelist", _MODELS),
            ),
            _group(
                "Log",
                _link("Prediction log", "receipt_long", "admin:predictions_prediction_changelist", _LOG),
                _link("Batches", "batch_prediction", "admin:predictions_batch_changelist", _MODELS),
                _link("Outcomes", "fact_check", "admin:predictions_outcome_changelist", _LOG),
                _link("Replays", "replay", "admin:predictions_replay_changelist", _MODELS),
                _link("Exports", "download", "admin:predictions_logexport_changelist", _LOG),
            ),
            _group(
                "Events",
                _link("Subscriptions", "notifications", "admin:core_subscription_changelist", _EVENTS),
                _link("Events", "event_note", "admin:core_event_changelist", _EVENTS),
                _link("Deliveries", "outgoing_mail", "admin:core_delivery_changelist", _EVENTS),
            ),
            _group(
                "Movies",
                _link("Catalogue", "movie", "admin:recommender_movie_changelist", _MOVIES),
                _link("Interactions", "thumbs_up_down", "admin:recommender_interaction_changelist", _READERS),
            ),
            _group(
                "Access",
                _link("Keys", "key", "admin:knox_authtoken_changelist", _has("knox.view_authtoken")),
                _link("People", "person", "admin:auth_user_changelist", _PEOPLE),
                _link("Groups", "group", "admin:auth_group_changelist", _has("auth.view_group")),
            ),
            _group(
                "Other pages",
                _link("Browsable API", "api", "models"),
                _link("Movie recommender", "local_movies", "movies-page"),
                _link("Documentation", "menu_book", "docs"),
                _link("Home", "home", "home"),
            ),
        ],
    },
}
