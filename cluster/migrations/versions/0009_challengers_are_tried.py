"""Challengers are tried beside the champion."""

import sqlalchemy as sa
from alembic import op

revision = '0009'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('model_trials',
    sa.Column('id', sa.String(length=26), nullable=False),
    sa.Column('scorer', sa.String(length=64), nullable=False),
    sa.Column('version', sa.String(length=128), nullable=False),
    sa.Column('uri', sa.String(length=1024), nullable=False),
    sa.Column('run_id', sa.String(length=64), nullable=False),
    sa.Column('user_id', sa.String(length=128), nullable=False),
    sa.Column('against', sa.String(length=128), nullable=True),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('started_at', sa.Float(), nullable=False),
    sa.Column('ended_at', sa.Float(), nullable=True),
    sa.Column('readings', sa.Integer(), nullable=False),
    sa.Column('champion_alerts', sa.Integer(), nullable=False),
    sa.Column('challenger_alerts', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_model_trials'))
    )
    running = sa.text("state = 'running'")
    op.create_index(
        'ix_model_trials_running', 'model_trials', ['id'], sqlite_where=running, postgresql_where=running
    )
    op.drop_index('ix_label_requests_next', 'label_requests')
    op.create_index(
        'ix_label_requests_next', 'label_requests', ['state', sa.text('priority DESC'), 'id']
    )
    judged = sa.text('verdict IS NOT NULL')
    op.create_index(
        'ix_alerts_judged', 'alerts', ['model_version', 'verdict'], sqlite_where=judged, postgresql_where=judged
    )
    op.create_index('ix_model_trials_version', 'model_trials', ['scorer', 'version'])


def downgrade() -> None:
    op.drop_index('ix_alerts_judged', 'alerts')
    op.drop_index('ix_label_requests_next', 'label_requests')
    op.create_index('ix_label_requests_next', 'label_requests', ['state', 'priority', 'id'])
    op.drop_table('model_trials')
