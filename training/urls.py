"""Routes of the registry, below ``/api/v1/``."""

from django.urls import path

from training import views

urlpatterns = [
    path("models/", views.ModelsView.as_view(), name="models"),
    path("models/<str:model>/", views.ModelDetailView.as_view(), name="model"),
    path("models/<str:model>/active/", views.ActiveView.as_view(), name="active"),
    path("models/<str:model>/rollback/", views.RollbackView.as_view(), name="rollback"),
    path("models/<str:model>/versions/", views.VersionsView.as_view(), name="versions"),
    path("models/<str:model>/versions/<int:number>/", views.VersionDetailView.as_view(), name="version"),
    path("models/<str:model>/versions/<int:number>/activate/", views.ActivateView.as_view(), name="activate"),
    path("models/<str:model>/training-runs/", views.TrainingRunsView.as_view(), name="training-runs"),
    path("models/<str:model>/training-runs/<int:run>/", views.TrainingRunView.as_view(), name="training-run"),
]
