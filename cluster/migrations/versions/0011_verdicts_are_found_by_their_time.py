"""Verdicts are found by their time."""

import sqlalchemy as sa
from alembic import op

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None


def upgrade() -> None:
    is_judged = sa.text('verdict IS NOT NULL')
    op.create_index(
        'ix_alerts_verdict_at', 'alerts', ['verdict_at'], sqlite_where=is_judged, postgresql_where=is_judged
    )


def downgrade() -> None:
    op.drop_index('ix_alerts_verdict_at', 'alerts')
