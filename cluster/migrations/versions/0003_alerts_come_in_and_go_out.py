"""Alerts of other systems come in, and ours go out: what holds until when, and messages on their way."""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('external_alerts',
    sa.Column('fingerprint', sa.String(length=16), nullable=False),
    sa.Column('ends_at', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('fingerprint', name=op.f('pk_external_alerts'))
    )
    op.create_index(op.f('ix_external_alerts_ends_at'), 'external_alerts', ['ends_at'], unique=False)
    op.create_table('notifications',
    sa.Column('id', sa.String(length=32), nullable=False),
    sa.Column('target', sa.String(length=32), nullable=False),
    sa.Column('event_id', sa.String(length=32), nullable=False),
    sa.Column('alert_id', sa.String(length=32), nullable=False),
    sa.Column('tenant', sa.String(length=64), nullable=False),
    sa.Column('seq', sa.Integer(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('created_at', sa.Float(), nullable=False),
    sa.Column('at', sa.Float(), nullable=False),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('body', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_notifications')),
    sa.UniqueConstraint('target', 'event_id', name=op.f('uq_notifications_target'))
    )
    op.create_index('ix_notifications_alert', 'notifications', ['alert_id', 'target', 'seq'], unique=False)
    op.create_index('ix_notifications_state', 'notifications', ['target', 'state', 'at'], unique=False)
    op.create_table('notification_targets',
    sa.Column('target', sa.String(length=32), nullable=False),
    sa.Column('position', sa.String(length=32), nullable=False),
    sa.Column('owner', sa.String(length=64), nullable=True),
    sa.Column('owned_until', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('target', name=op.f('pk_notification_targets'))
    )


def downgrade() -> None:
    op.drop_table('notification_targets')
    op.drop_index('ix_notifications_state', table_name='notifications')
    op.drop_index('ix_notifications_alert', table_name='notifications')
    op.drop_table('notifications')
    op.drop_index(op.f('ix_external_alerts_ends_at'), table_name='external_alerts')
    op.drop_table('external_alerts')
